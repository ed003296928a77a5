"""From the content of items to the rows of an answer: the run behind the service."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any, NamedTuple

import numpy as np

from headstart.commands.predict.job import predictions_of
from headstart.commands.predict.model import Judge
from headstart.commands.predict.predictions import Predictions
from headstart.commands.serve.fault import Fault
from headstart.commands.session import Session
from headstart.core.errors import ConfigError
from headstart.core.wording import singular
from headstart.data.arrays import image_content
from headstart.data.content import Content, TooLargeError, UndecodableError, digest
from headstart.data.sides import sides_told
from headstart.data.source import NATIVE
from headstart.extraction import Extractor
from headstart.store.columns import decode, encode

Row = dict[str, Any]

AHEAD = 10_000
"""Items that the choice of an engine reckons with: a service is prepared once and answers many."""
_MILLION = 1_000_000


class Decoded(NamedTuple):
    """One item, ready for the network.

    Attributes:
        sample: of the inputs.
        id: of the content.
    """

    sample: Any
    id: str


class Answers:
    """Decodes items and predicts for batches of them, as ``predict`` does.

    Rows differ from those of ``predict`` by rounding alone: batches have other sizes.

    Args:
        judge: the run, with the coverage and what tells strange items, where they were asked for.
        session: of the call, with batch size, device and engine.
        top: classes an item.
        max_pixels: millions of one image.

    Attributes:
        model: backbone and head.
        kind: what the run takes, ``image``, ``audio`` or ``text``.
        unit: what several items are called ("images").
        size: items of a batch, at most.
        workers: threads that decode; None: by the machine.
        columns: of an answer, by name one value each, once the run is warm.
    """

    def __init__(self, judge: Judge, session: Session, *, top: int, max_pixels: float) -> None:
        self.model = judge.model.predictor
        if self.model.columns:
            named = ", ".join(f"'{each.name}'" for each in self.model.columns)
            raise ConfigError(
                (f"the run joins columns of a table ({named}), which requests do not carry",),
                hint="use predict with a table, or fit without columns",
            )
        self.judge, self.top = judge, top
        self.columns: dict[str, Any] = {}
        self._max_pixels = max_pixels
        self._settings = self.model.settings(session)
        backbone = self.model.backbone
        cuts = (backbone, *(backbone.at(layer) for layer in judge.layers))
        self._extractor = Extractor(cuts, self._settings, session.cache.plans())
        self._extractor.ahead = AHEAD
        inputs = backbone.inputs
        self.kind, self.unit, self.size = inputs.kind, inputs.unit, self._settings.batch_size
        self.workers = self._settings.workers

    def __enter__(self) -> Answers:
        self._extractor.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._extractor.__exit__(*error)

    def warm_up(self) -> list[str]:
        """Choose the engine, check the network and run it once; return what is to be said."""
        example = self.model.backbone.inputs.example(self.size)
        views = [self._stored(rows) for rows in self._extractor.run(example)]
        said = self._said(views, [""] * len(views[0]), [f"{i}" for i in range(len(views[0]))])
        self.columns = {name: column[0] for name, column in said.columns(self.top).items()}
        notes, self._extractor.notes = list(self._extractor.notes), []
        return notes

    def sample(self, content: Content) -> Decoded | Fault:
        """Decode one item; returns a sample of the inputs, or why there is none."""
        expected = "an image" if self.unit == "images" else f"a {singular(self.unit)}"
        try:
            key = digest(content)
            if isinstance(content, bytes) and self.unit == "images":
                native = self.kind == NATIVE
                too_large = self._too_large(content, native)
                if too_large is not None:
                    return too_large
                content = image_content(content, self.model.value_range, native=native)
            return Decoded(self.model.backbone.inputs.sample(content), key)
        except TooLargeError as error:
            return Fault(expected, str(error), "send a smaller one", 413)
        except UndecodableError as error:
            return Fault(expected, str(error), "repair the item, or leave it out")
        except MemoryError:
            found = "it needs more memory than is available"
            return Fault(expected, found, "send a smaller one", 413)
        except Exception as error:  # of a decoder: one bad item
            kind = type(error).__name__
            return Fault(expected, f"it cannot be decoded ({kind})", "repair it, or leave it out")

    def _too_large(self, data: bytes, native: bool) -> Fault | None:
        """Refuse an image by what its header says, before its pixels take memory."""
        sides = sides_told(data, native=native)
        if sides is None or sides[0] * sides[1] <= self._max_pixels * _MILLION:
            return None
        width, height = sides
        return Fault(
            f"at most {self._max_pixels:g} million pixels",
            f"{width:,} × {height:,} pixels",
            "send a smaller image",
            413,
        )

    def rows(self, samples: Sequence[Decoded], names: Sequence[str]) -> list[Row | Fault]:
        """Predict for decoded items: one row of ``predict``'s table an item. One thread at a time.

        Args:
            samples: what :meth:`sample` returned.
            names: of the items, for the answer.
        """
        shapes: dict[Hashable, list[int]] = {}
        for at, each in enumerate(samples):  # of sounds, say, those of one length are a batch
            shapes.setdefault(self.model.backbone.inputs.shape(each.sample), []).append(at)
        order = [at for places in shapes.values() for at in places]
        parts = [self._run([samples[at].sample for at in places]) for places in shapes.values()]
        back = np.argsort(order)
        views = [self._stored(np.concatenate(blocks)[back]) for blocks in zip(*parts, strict=True)]
        columns = self._said(views, names, [each.id for each in samples]).columns(self.top)
        table = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values())]  # noqa: B905
        return [row if _finite(row) else _NOT_FINITE for row in table]

    def _run(self, samples: Sequence[Any]) -> list[np.ndarray]:
        """Return features of samples of one shape at the cut of the run and at further layers."""
        inputs = self.model.backbone.inputs
        collated = inputs.collate(samples)
        order = np.arange(len(samples))
        if collated.mask is not None:  # the longest first: batches are parted where lengths fall
            order = np.argsort(-collated.mask.sum(dim=1).numpy(), kind="stable")
            collated = collated.map(lambda tensor: tensor[order])
        found = self._extractor.run(inputs.finish(collated))
        self._extractor.notes.clear()
        back = np.argsort(order)
        return [rows[back] for rows in found]

    def _said(
        self, views: Sequence[np.ndarray], names: Sequence[str], ids: Sequence[str]
    ) -> Predictions:
        return predictions_of(self.judge, views, tuple(names), ids)

    def _stored(self, rows: np.ndarray) -> np.ndarray:
        """Return rows as the cache would give them back."""
        if self.model.storage == "float32":
            return rows
        kept = encode("features", rows, self.model.storage)
        return np.asarray(decode(kept.spec, kept.values, kept.scale), np.float32)


_NOT_FINITE = Fault(
    "finite features", "the network gives none for this item", "leave the item out", 500
)


def _finite(row: Row) -> bool:
    return all(math.isfinite(cell) for cell in row.values() if isinstance(cell, float))


__all__ = ["AHEAD", "Answers"]
