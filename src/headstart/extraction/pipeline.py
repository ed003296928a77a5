"""Running a backbone over items, batch by batch.

The network runs once per item, in evaluation mode (running statistics, no dropout) under
``inference_mode``; modes are restored afterwards. All batches of a split have one shape: the last
one is filled up and the surplus dropped, so that no row is computed by other kernels than its
neighbours, and none depends on which rows were there already. A split smaller than a batch has
batches of its own size: one image is computed as one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.backbones import Backbone, features_of
from headstart.core.arguments import Arguments
from headstart.core.errors import DataError
from headstart.core.progress import Progress, Reporter, SilentReporter
from headstart.core.stages import Stages, Throughput
from headstart.data import BadItem, NumberedView, Split, read_batches
from headstart.data.reading import OnBad, default_workers, settle_bad_items
from headstart.data.remarks import remark_notes
from headstart.extraction.choice import settled
from headstart.extraction.engines import AUTO, EAGER, EngineUnfitError
from headstart.extraction.feed import Feed
from headstart.extraction.plan import AS_WRITTEN, Memory, Plan, Trial, unfit_note
from headstart.extraction.precision import INT8, autocast
from headstart.extraction.row_checks import check_rows
from headstart.extraction.settings import Extraction
from headstart.modules.modes import evaluation_mode

if TYPE_CHECKING:
    from headstart.extraction.engines.table import Run

_CHECKED = 8
"""Items of the first batch that the network and the engine are checked on."""
_FEW = 8
"""Items that a part of a batch has at least, where lengths differ."""
_MUCH_SHORTER = 0.8
"""A text of less than this share of the longest one begins a part of its own."""
_SLOW_SECONDS, _STEP_SECONDS = 8.0, 4.0
"""A batch that takes longer than the first is run in steps of less than the second: rows are
committed between them, and a kill loses no more than a few seconds of work. Rows differ by
rounding alone, as they do between batch sizes."""
_IN_HALF = " in half precision; precision='float32' may help"


@dataclass(frozen=True, eq=False)
class FeatureRows:
    """Features of some items.

    Attributes:
        indices: ``(m,) int64``, positions in the split.
        features: for every cut, ``(m, d) float32`` or ``(m, ...) float32``.
    """

    indices: NDArray[np.int64]
    features: tuple[NDArray[np.float32], ...]


class Extractor:
    """Runs one network, cut at one or several places, over any number of splits.

    It is a context: what is compiled or hooked for it lasts until it is left. The first batch it
    sees is tested: a network whose rows depend on the batch or on randomness is refused, since such
    rows are not functions of their items.

    Args:
        cuts: the same network with the same inputs.
        settings: batch size, precision (not ``auto``), device.
        memory: of earlier trials of engines.

    Attributes:
        bad: items that could not be read so far, or of which the network makes no finite
            features, with their positions in their split.
        done: items whose rows were computed.
        stages: where the time went.
        remarks: what is odd about items that could be read, with their origins.
        notes: how the network runs, where that is not as it was asked for.
        plan: how it runs; None before the first batch.
        ahead: items that will be computed in all, over several calls of :meth:`rows`; the plan
            weighs its preparations against them.
    """

    def __init__(
        self,
        cuts: Sequence[Backbone],
        settings: Extraction | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.cuts = tuple(cuts)
        self.settings = settings or Extraction()
        self.bad: list[BadItem] = []
        self.remarks: dict[str, list[str]] = {}
        self.notes: list[str] = []
        self.plan: Plan | None = None
        self.ahead = 0
        self.memory = memory
        self._trial: Trial | None = None
        self.done, self.stages = 0, Stages()
        self._most: int | None = None  # items at a time that the memory holds
        self._device = self.settings.resolve_device()
        self.settings.check_precision(self._device)
        self._open = contextlib.ExitStack()
        self._forward: Run | None = None
        self._item_seconds = 0.0

    def __enter__(self) -> Extractor:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()
        self._forward = None

    def rows(
        self,
        split: Split,
        indices: NDArray[np.int64] | None = None,
        *,
        view: NumberedView | None = None,
        task: Progress | None = None,
    ) -> Iterator[FeatureRows]:
        """Compute features of items; unreadable ones are left out and listed in ``bad``.

        Rows come in the order in which the inputs take the items (texts: by length).

        Args:
            split: the items.
            indices: positions in the split; None: all.
            view: a numbered augmentation; None: the items without augmentation.
            task: advanced by the items that are done, readable or not.

        Raises:
            BackboneError: rows depend on the batch or on randomness, are the same for every item,
                or are not finite for any item of the first batch.
        """
        inputs = self.cuts[0].inputs
        inputs.check_items(split.items)
        chosen = np.arange(len(split)) if indices is None else indices
        reader = read_batches(
            split,
            inputs.order(split, chosen),
            inputs,
            batch_size=self.settings.batch_size,
            view=view,
            workers=self.settings.workers,
            on_bad="skip",
            stages=self.stages,
        )
        shape = self._shape(split)
        count = max(self.ahead, len(split) if indices is None else len(indices))
        feed = Feed(reader, self._device, self.stages)
        try:
            for batch in feed:
                with self.stages("model"):
                    arguments = batch.arguments()
                for part, rows in self._batch(arguments, shape, count):
                    good = self._finite(split, FeatureRows(batch.indices[part], rows))
                    if len(good.indices):
                        yield good
                self.done += len(batch.indices)
                if task is not None:
                    task.advance(len(batch.indices))
        finally:
            feed.close()
            self.bad += reader.bad
            for what, origins in reader.remarks.items():
                self.remarks.setdefault(what, []).extend(origins)
        if task is not None:
            task.advance(len(reader.bad))

    def _finite(self, split: Split, rows: FeatureRows) -> FeatureRows:
        """Leave out items whose features are not finite, and list them in ``bad``."""
        # Minimum and maximum carry NaN and infinity through without a temporary of that size.
        if all(np.isfinite(one.min()) and np.isfinite(one.max()) for one in rows.features):
            return rows
        every = [np.isfinite(one.reshape(len(one), -1)).all(axis=1) for one in rows.features]
        good = np.logical_and.reduce(every)
        half = self.settings.precision in ("float16", "bfloat16")
        reason = f"the network's features of it are not finite{_IN_HALF if half else ''}"
        for i in rows.indices[~good].tolist():
            self.bad.append(BadItem(i, split.items.origin(int(split.rows[i])), reason))
        return FeatureRows(rows.indices[good], tuple(one[good] for one in rows.features))

    def run(self, batch: Arguments) -> tuple[NDArray[np.float32], ...]:
        """Compute features of a batch that has been read already, as a service has it.

        An engine that is made for one shape gets full batches, and the surplus is dropped; texts
        come with the longest first.

        Args:
            batch: what the network is called with.

        Returns:
            For every cut ``(n, ...) float32``, in the order of the batch.

        Raises:
            BackboneError: as for :meth:`rows`, on the first batch.
        """
        shape = len(batch) if self._any_shape else self.settings.batch_size
        count = max(self.ahead, len(batch))
        parts = [rows for _, rows in self._batch(batch.to(self._device), shape, count)]
        return tuple(np.concatenate(blocks) for blocks in zip(*parts, strict=True))

    def throughput(self) -> Throughput:
        """Return what the stages could do, each alone."""
        return Throughput.of(self.stages, self.done, self.settings.workers or default_workers())

    def _batch(
        self, arguments: Arguments, shape: int, count: int
    ) -> Iterator[tuple[slice, tuple[NDArray[np.float32], ...]]]:
        """Run one batch, in steps where it takes long or where the memory does not hold it."""
        start = 0
        while start < len(arguments):
            size, rest = min(shape, self._most or shape), arguments[start:]
            try:
                step = min(size, self._prepare(rest[:size], size, count))
                part = next(self._parts(rest, step))
                rows = self._features(rest[part].trimmed(), self._filled_to(step))
            except RuntimeError as error:
                if size == 1 or not _is_out_of_memory(error):
                    raise
                rows = None
            if rows is None:  # out of the handler, which holds what the pass had allocated
                self._halve(size)
                continue
            yield slice(start, start + part.stop), rows
            start += part.stop

    def _halve(self, size: int) -> None:
        """Run fewer items at a time from now on."""
        self._most = (size + 1) // 2
        if self._device.type == "cuda":
            torch.cuda.empty_cache()
        where = "this machine's memory" if self._device.type == "cpu" else f"{self._device}"
        unit = self.cuts[0].inputs.unit
        self.notes.append(
            f"{where} does not hold {size} {unit} at a time: from here on {self._most} run at a"
            f" time; batch_size={self._most} says so from the beginning"
        )

    def _shape(self, split: Split) -> int:
        """Return how many items every batch of a split has, once it is filled up.

        It follows from the split alone, not from the rows that are missing: what is stored does not
        decide. An engine that is made for one shape keeps it.
        """
        size = self.settings.batch_size
        return max(1, min(size, len(split))) if self._any_shape else size

    @property
    def _any_shape(self) -> bool:
        """Whether the engine takes batches of any shape, or is not chosen yet."""
        engine = self.settings.engine if self.plan is None else self.plan.engine
        return engine in (AUTO, EAGER, AS_WRITTEN)

    def _prepare(self, inputs: Arguments, shape: int, count: int) -> int:
        """Open the engine on the first batch; return how many items to run at a time.

        That is the whole batch, unless it takes so long that a kill would lose much of it.
        """
        if self._forward is None:
            if self.cuts[0].device != self._device:
                self.cuts[0].module.to(self._device)
            with self._computing():
                self._forward = self._start(inputs, shape, count)
        step = shape
        if self._any_shape and step * self._item_seconds > _SLOW_SECONDS:
            while step > 1 and step * self._item_seconds > _STEP_SECONDS:
                step = (step + 1) // 2
        return step

    def _parts(self, inputs: Arguments, step: int) -> Iterator[slice]:
        """Divide a batch into parts of ``step`` items, or fewer where lengths fall within it."""
        lengths = (
            inputs.mask.sum(dim=1).tolist() if self._ragged and inputs.mask is not None else ()
        )
        start = 0
        for end in range(1, len(inputs) + 1):
            falls = (
                end < len(lengths)
                and end - start >= _FEW
                and lengths[end] < _MUCH_SHORTER * lengths[start]
            )
            if end == len(inputs) or end - start == step or falls:
                yield slice(start, end)
                start = end

    @property
    def _ragged(self) -> bool:
        """Whether parts of batches may have shapes of their own."""
        engine = self.settings.engine if self.plan is None else self.plan.engine
        return engine in (EAGER, AS_WRITTEN) and self._differ

    @cached_property
    def _differ(self) -> bool:
        return self.cuts[0].inputs.ragged

    def _filled_to(self, step: int) -> int:
        return 0 if self._ragged else step

    def tell(self, reporter: Reporter) -> None:
        """Report, once, how the network ran, and what is odd about items that could be read."""
        for note in (*self.notes, *remark_notes(self.remarks, self.cuts[0].inputs.unit)):
            reporter.note(note)
        self.remarks, self.notes = {}, []

    def _features(self, inputs: Arguments, shape: int) -> tuple[NDArray[np.float32], ...]:
        """Run some items, filled up to ``shape``."""
        assert self._forward is not None
        with self.stages("model"), self._computing():
            try:
                outputs = self._forward(inputs.filled(shape))
            except EngineUnfitError as unfit:  # of a shape, say, that the first batch did not have
                assert self.plan is not None
                assert self._trial is not None
                self.notes.append(unfit_note(self.plan.engine, unfit))
                self._forward, self.plan = self._trial.as_written()
                outputs = self._forward(inputs.filled(shape))
            return tuple(out[: len(inputs)].float().cpu().numpy() for out in outputs)

    @contextlib.contextmanager
    def _computing(self) -> Iterator[None]:
        module, precision = self.cuts[0].module, self.settings.precision
        threads = torch.get_num_threads()
        if self.plan is not None:
            _set_threads(self.plan.threads)
        try:
            with evaluation_mode(module), torch.inference_mode(), autocast(precision, self._device):
                yield
        finally:
            _set_threads(threads)

    def _start(self, inputs: Arguments, shape: int, count: int) -> Run:
        """Check the network on the first batch, and open the engine for ``count`` items."""
        precision = self.settings.precision
        begun = time.perf_counter()
        # Of a job of a dozen items the check would else be the larger part.
        most = max(2, min(_CHECKED, count // 4))
        few = inputs[-_FEW:].trimmed() if self._ragged else inputs[:most]
        expected = check_rows(self.cuts, few, precision)
        self._item_seconds = (time.perf_counter() - begun) / (2 * len(few) + 1)
        if self._item_seconds * self.settings.batch_size > _SLOW_SECONDS:
            # It may have been the first pass only that took long: measure another.
            begun = time.perf_counter()
            features_of(self.cuts, inputs[:_CHECKED])
            self._item_seconds = (time.perf_counter() - begun) / len(inputs[:_CHECKED])
        trial = self._trial = Trial(
            self.cuts,
            precision,
            self._device,
            inputs.filled(shape),
            count,
            expected,
            self._item_seconds,
            self._open.enter_context,
            self.memory,
            fixed=self.cuts[0].inputs.unit == "images",
        )
        name = self.settings.engine
        if precision == INT8:
            run, self.plan = trial.in_int8()
        elif name == AUTO and self._differ and inputs.mask is None:
            # Items of each length are a batch of their own: an engine would be made for each.
            run, self.plan = trial.as_written()
        else:
            run, self.plan = trial.chosen() if name == AUTO else trial.named(name)
        self.notes += trial.notes
        if self.plan.reason:
            self.notes.append(str(self.plan))
        return run


def _set_threads(count: int) -> None:
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


def _is_out_of_memory(error: RuntimeError) -> bool:
    """Whether a pass needed more memory than its device, or this machine, has."""
    if isinstance(error, torch.OutOfMemoryError):
        return True
    text = str(error).lower()
    return any(said in text for said in ("out of memory", "not enough memory", "can't allocate"))


def extract(
    cuts: Backbone | Sequence[Backbone],
    split: Split,
    *,
    settings: Extraction | None = None,
    on_bad: OnBad = "raise",
    reporter: Reporter | None = None,
) -> FeatureRows:
    """Compute the features of a split in memory, without a cache.

    Nothing is kept of the trials of ``precision='auto'`` and ``engine='auto'`` either.

    Args:
        cuts: one network, cut at one or several places.
        split: the items.
        settings: batch size, precision, device.
        on_bad: ``raise`` after everything readable has been computed, or ``skip``.
        reporter: shown progress, and what is skipped.

    Returns:
        ``indices`` says which items have a row; all of them, unless some were skipped.

    Raises:
        BadFilesError: items cannot be read (``on_bad="raise"``).
        BackboneError: rows depend on the batch or on randomness.
    """
    reporter = reporter or SilentReporter()
    cuts = (cuts,) if isinstance(cuts, Backbone) else tuple(cuts)
    settings, why = settled(settings or Extraction(), cuts, split, len(split))
    if why:
        reporter.note(why)
    with (
        Extractor(cuts, settings) as extractor,
        reporter.task("extract features", len(split), cuts[0].inputs.unit) as task,
    ):
        parts = list(extractor.rows(split, task=task))
    extractor.tell(reporter)
    settle_bad_items(extractor.bad, on_bad, reporter)
    if not parts:
        raise DataError("no item of the data can be read", hint="see the reasons above")
    indices = np.concatenate([part.indices for part in parts])
    order = np.argsort(indices, kind="stable")
    blocks = zip(*(part.features for part in parts), strict=True)
    return FeatureRows(indices[order], tuple(np.concatenate(block)[order] for block in blocks))


__all__ = ["Extractor", "FeatureRows", "extract"]
