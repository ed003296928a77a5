"""From the content of items to the rows of an answer: the run behind the service."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np

from headstart.commands.predict.job import predictions_of
from headstart.commands.predictor import RunPredictor
from headstart.commands.serve.fault import Fault
from headstart.commands.session import Session
from headstart.core.errors import ConfigError
from headstart.core.wording import singular
from headstart.data.arrays import image_content
from headstart.data.content import Content, UndecodableError
from headstart.data.formats import open_header
from headstart.data.source import NATIVE
from headstart.extraction import Extractor
from headstart.store.columns import decode, encode

AHEAD = 10_000
"""Items that the choice of an engine reckons with: a service is prepared once and answers many."""
_MILLION = 1_000_000


class Answers:
    """Decodes items and predicts for batches of them, as ``predict`` does.

    Rows differ from those of ``predict`` by rounding alone: batches have other sizes.

    Args:
        model: the run.
        session: of the call, with batch size, device and engine.
        top: classes an item.
        max_pixels: millions of one image.

    Attributes:
        kind: what the run takes, such as ``image``, ``text`` or ``audio``.
        unit: what several items are called ("images").
        size: items of a batch, at most.
        workers: threads that decode; None: by the machine.
    """

    def __init__(
        self, model: RunPredictor, session: Session, *, top: int, max_pixels: float
    ) -> None:
        if model.columns:
            named = ", ".join(f"'{each.name}'" for each in model.columns)
            raise ConfigError(
                (f"the run joins columns of a table ({named}), which requests do not bring",),
                hint="predict takes tables; or fit without columns",
            )
        self.model, self.top = model, top
        self._max_pixels = max_pixels
        self._settings = model.settings(session)
        self._extractor = Extractor((model.backbone,), self._settings, session.cache.plans())
        self._extractor.ahead = AHEAD
        inputs = model.backbone.inputs
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
        rows = self._extractor.run(example)[0]
        predictions_of(self.model, self._stored(rows), ("",) * len(rows)).columns(self.top)
        notes, self._extractor.notes = list(self._extractor.notes), []
        return notes

    def sample(self, content: Content) -> Any | Fault:
        """Decode one item; returns a sample of the inputs, or why there is none."""
        expected = "an image" if self.unit == "images" else f"a {singular(self.unit)}"
        try:
            if isinstance(content, bytes) and self.unit == "images":
                native = self.kind == NATIVE
                too_large = None if native else self._too_large(content)
                if too_large is not None:
                    return too_large
                content = image_content(content, self.model.value_range, native=native)
            return self.model.backbone.inputs.sample(content)
        except UndecodableError as error:
            return Fault(expected, str(error), "repair the item, or leave it out")
        except MemoryError:
            return Fault(expected, "it needs more memory than there is", "send a smaller one")
        except Exception as error:  # of a decoder: one bad item
            kind = type(error).__name__
            return Fault(expected, f"it cannot be decoded ({kind})", "repair it, or leave it out")

    def _too_large(self, data: bytes) -> Fault | None:
        """Refuse an image by what its header says, before its pixels take memory."""
        width, height = open_header(data).size
        if width * height <= self._max_pixels * _MILLION:
            return None
        return Fault(
            f"at most {self._max_pixels:g} million pixels",
            f"{width:,} × {height:,} pixels",
            "send a smaller image",
            413,
        )

    def rows(self, samples: Sequence[Any], names: Sequence[str]) -> list[dict[str, Any] | Fault]:
        """Predict for decoded items: one row of ``predict``'s table an item. One thread at a time.

        Args:
            samples: what :meth:`sample` returned.
            names: of the items, for the answer.
        """
        shape = self.model.backbone.inputs.shape
        where: dict[Hashable, list[int]] = {}
        for at, sample in enumerate(samples):
            where.setdefault(shape(sample), []).append(at)
        found = [self._features([samples[at] for at in own]) for own in where.values()]
        rows = np.empty((len(samples), found[0].shape[1]), found[0].dtype)
        for own, part in zip(where.values(), found, strict=True):
            rows[own] = part
        columns = predictions_of(self.model, self._stored(rows), tuple(names)).columns(self.top)
        table = [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values())]  # noqa: B905
        return [row if _finite(row) else _NOT_FINITE for row in table]

    def _features(self, samples: Sequence[Any]) -> np.ndarray:
        """Return the rows of samples that may be in one batch."""
        inputs = self.model.backbone.inputs
        collated = inputs.collate(samples)
        order = np.arange(len(samples))
        if collated.mask is not None:  # the longest first: batches are parted where lengths fall
            order = np.argsort(-collated.mask.sum(dim=1).numpy(), kind="stable")
            collated = collated.map(lambda tensor: tensor[order])
        found = self._extractor.run(inputs.finish(collated))[0]
        self._extractor.notes.clear()
        rows = np.empty_like(found)
        rows[order] = found
        return rows

    def _stored(self, rows: np.ndarray) -> np.ndarray:
        """Return rows as the cache would give them back."""
        if self.model.storage == "float32":
            return rows
        kept = encode("features", rows, self.model.storage)
        return np.asarray(decode(kept.spec, kept.values, kept.scale), np.float32)


_NOT_FINITE = Fault(
    "finite features", "the network gives none for this item", "leave the item out", 500
)


def _finite(row: dict[str, Any]) -> bool:
    return all(math.isfinite(cell) for cell in row.values() if isinstance(cell, float))


__all__ = ["AHEAD", "Answers"]
