"""One network on one device: its engine, the memory that it finds, and how many items a pass has.

An extractor has one, or one for each of several devices; the first one chooses the plan, which the
others follow.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from headstart.backbones import Backbone, features_of
from headstart.core.arguments import Arguments
from headstart.core.devices import empty_cache, is_out_of_memory
from headstart.core.errors import BackboneError
from headstart.core.stages import Stages
from headstart.extraction.engines import AUTO, EAGER, EngineUnfitError
from headstart.extraction.feed import Delivery
from headstart.extraction.plan import AS_WRITTEN, Memory, Plan, Trial, unfit_note
from headstart.extraction.precision import INT8, ROW_TOLERANCE, autocast, row_errors
from headstart.extraction.row_checks import check_rows, finite_rows
from headstart.extraction.settings import Extraction
from headstart.modules.modes import evaluation_mode

if TYPE_CHECKING:
    from headstart.extraction.engines.table import Run

Rows = tuple[NDArray[np.float32], ...]
"""For every cut ``(m, ...) float32``."""

_CHECKED = 8
"""Items of the first batch that the network and the engine are checked on."""
_FEW = 8
"""Items that a part of a batch has at least, where lengths differ."""
_MUCH_SHORTER = 0.8
"""A text of less than this share of the longest one begins a part of its own."""
_FITTING = 614_400
"""Values of images in a pass, for each thread of a CPU: eight images of 224 px on two threads. What
layers pass on then stays in the processor's caches; 64 images take up to twice as long apiece."""
_SLOW_SECONDS, _STEP_SECONDS = 8.0, 4.0
"""A batch that takes longer than the first is run in steps of less than the second: rows are
committed between them, and a kill loses no more than a few seconds of work. Rows differ by
rounding alone, as they do between batch sizes."""


def items_a_pass(arguments: Arguments, most: int, threads: int) -> int:
    """Return how many items go through a network at a time: images on a CPU as its caches hold.

    Args:
        arguments: what the network is called with; images have four dimensions.
        most: items, which are divided into passes of one size.
        threads: that run a pass.
    """
    images = next(arguments.tensors())
    if images.device.type != "cpu" or images.ndim != 4:
        return most
    fitting = max(1, _FITTING * threads // max(1, images[0].numel()))
    return -(-most // -(-most // fitting))


class Replica:
    """A network on a device.

    What is compiled or hooked for it lasts until it is closed.

    Args:
        cuts: the same network with the same inputs; the module is moved to the device.
        settings: batch size, precision (not ``auto``), engine.
        device: where it runs.
        stages: takes the time of the passes.
        note: hears how the network runs, where that is not as it was asked for.
        memory: of earlier trials of engines.
        leader: has chosen the plan; None: this one chooses.
        name: of the device, for messages.

    Attributes:
        plan: how it runs; None before the first batch.
        item_seconds: of a pass of the network as it is written; 0 before the first batch.
    """

    def __init__(
        self,
        cuts: Sequence[Backbone],
        settings: Extraction,
        device: torch.device,
        stages: Stages,
        note: Callable[[str], None],
        *,
        memory: Memory | None = None,
        leader: Replica | None = None,
        name: str = "",
    ) -> None:
        self.cuts, self.settings, self.device = tuple(cuts), settings, device
        self.name = name or str(device)
        self.plan: Plan | None = None
        self._stages, self._note, self._memory, self._leader = stages, note, memory, leader
        self._trial: Trial | None = None
        self._most: int | None = None  # items at a time that the memory holds
        self._threads = torch.get_num_threads()
        self._open = contextlib.ExitStack()
        self._forward: Run | None = None
        self.item_seconds = 0.0
        self._checked: tuple[Arguments, Sequence[Tensor]] | None = None

    def close(self) -> None:
        """Let go of what was compiled or hooked."""
        self._open.close()
        self._forward = self._checked = None

    def received(self, batch: Delivery) -> Arguments:
        """Return a batch as the network takes it, on the device.

        On the CPU torch has one thread for that. The others would wait for more work by spinning,
        and take the processors from decoders and from engines with threads of their own: a fifth of
        the time of small images.
        """
        threads = torch.get_num_threads()
        if self.device.type == "cpu":
            _set_threads(1)
        try:
            with self._stages("model"):
                return batch.arguments(self.device)
        finally:
            _set_threads(threads)

    def batch(self, arguments: Arguments, shape: int, count: int) -> Iterator[tuple[slice, Rows]]:
        """Run one batch, in steps of what the caches of a CPU hold, or the memory.

        Args:
            arguments: on the device.
            shape: items that every pass is filled up to.
            count: items of the job, which the plan weighs its preparations against.

        Yields:
            Which items of the batch, and their rows.
        """
        start = 0
        while start < len(arguments):
            size = items_a_pass(arguments, min(shape, self._most or shape), self._threads)
            rest = arguments[start:]
            try:
                step = min(size, self._prepare(rest[:size], size, count))
                part = next(self._parts(rest, step))
                rows = self._features(rest[part].trimmed(), self._filled_to(step))
            except RuntimeError as error:
                if size == 1 or not is_out_of_memory(error):
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
        empty_cache(self.device)
        where = "this machine's memory" if self.name == "cpu" else self.name
        unit = self.cuts[0].inputs.unit
        self._note(
            f"{where} cannot hold {size} {unit} at a time: continuing with {self._most} at a"
            f" time; to start with that, set batch_size={self._most}"
        )

    @property
    def any_shape(self) -> bool:
        """Whether the engine takes batches of any shape, or is not chosen yet."""
        engine = self.settings.engine if self.plan is None else self.plan.engine
        return engine in (AUTO, EAGER, AS_WRITTEN)

    def _prepare(self, inputs: Arguments, shape: int, count: int) -> int:
        """Open the engine on the first batch; return how many items to run at a time.

        That is the whole batch, unless it takes so long that a kill would lose much of it.
        """
        if self._forward is None:
            if self.cuts[0].device != self.device:
                self.cuts[0].module.to(self.device)
            with self._computing():
                leader = self._leader
                self._forward = (
                    self._start(inputs, shape, count)
                    if leader is None
                    else self._follow(leader, shape, count)
                )
        step = shape
        if self.any_shape and step * self.item_seconds > _SLOW_SECONDS:
            while step > 1 and step * self.item_seconds > _STEP_SECONDS:
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

    def _features(self, inputs: Arguments, shape: int) -> Rows:
        """Run some items, filled up to ``shape``."""
        assert self._forward is not None
        with self._stages("model"), self._computing():
            try:
                outputs = self._forward(inputs.filled(shape))
            except EngineUnfitError as unfit:  # of a shape, say, that the first batch did not have
                assert self.plan is not None
                assert self._trial is not None
                self._note(unfit_note(self.plan.engine, unfit))
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
            with evaluation_mode(module), torch.inference_mode(), autocast(precision, self.device):
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
        self.item_seconds = (time.perf_counter() - begun) / (2 * len(few) + 3)
        if self.item_seconds * self.settings.batch_size > _SLOW_SECONDS:
            # It may have been the first pass only that took long: measure another.
            begun = time.perf_counter()
            features_of(self.cuts, inputs[:_CHECKED])
            self.item_seconds = (time.perf_counter() - begun) / len(inputs[:_CHECKED])
        trial = self._trial = Trial(
            self.cuts,
            precision,
            self.device,
            inputs.filled(shape),
            count,
            expected,
            self.item_seconds,
            self._open.enter_context,
            self._memory,
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
        self._checked = few.map(_on_cpu), [_on_cpu(rows) for rows in expected]
        for note in (*trial.notes, *((str(self.plan),) if self.plan.reason else ())):
            self._note(note)
        return run

    def _follow(self, leader: Replica, shape: int, count: int) -> Run:
        """Open the engine that another device runs on, and check that it gives the same rows."""
        assert leader.plan is not None
        assert leader._checked is not None
        few, expected = leader._checked[0].to(self.device), leader._checked[1]
        precision = self.settings.precision
        own = features_of(self.cuts, few)
        for rows, others in zip(own, expected, strict=True):
            good = finite_rows(others)
            if not good.any():
                continue
            off = float(row_errors(_on_cpu(rows)[good], others[good]).max())
            if not off <= ROW_TOLERANCE[precision]:  # written so that NaN fails, too
                raise BackboneError(
                    f"{self.name} gives different features from {leader.name} (they differ by"
                    f" {off:.2g} of their length)",
                    hint=f"use only device='{leader.device}'",
                )
        trial = self._trial = Trial(
            self.cuts,
            precision,
            self.device,
            few.filled(shape),
            count,
            own,
            leader.item_seconds,
            self._open.enter_context,
        )
        self.item_seconds = leader.item_seconds
        engine = leader.plan.engine
        run, self.plan = trial.as_written() if engine == AS_WRITTEN else trial.named(engine)
        if self.plan.engine == EAGER:
            run(few.filled(shape))  # it folds norms as on the leader's items, or does not
        for note in trial.notes:
            self._note(f"{self.name}: {note}")
        return run


def _on_cpu(tensor: Tensor) -> Tensor:
    """Return a copy on the CPU, which holds no larger tensor."""
    return tensor.cpu().clone()


def _set_threads(count: int) -> None:
    if torch.get_num_threads() != count:
        torch.set_num_threads(count)


__all__ = ["Replica", "Rows", "items_a_pass"]
