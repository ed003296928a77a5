"""The training loop: one, for every recipe, from images and from stored rows alike."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Sequence

from torch import Tensor, nn

from headstart.core.progress import SilentReporter
from headstart.core.records import ACCURACY
from headstart.core.wording import count
from headstart.finetuning import rng
from headstart.finetuning.checkpoint import Checkpoint, Saved
from headstart.finetuning.devices import ALONE, Devices
from headstart.finetuning.epoch import train_epoch, validate
from headstart.finetuning.feeds import Feeds, StageFeeds
from headstart.finetuning.outcome import EpochRecord, StageOutcome, Trained
from headstart.finetuning.planner import Prepared
from headstart.finetuning.recipe import Stage
from headstart.finetuning.state import TrainingState
from headstart.freezing import FreezeHandle, freeze
from headstart.freezing.norm import stamp
from headstart.modules.kinds import is_running_norm

Log = Callable[[Sequence[EpochRecord]], None]


def train(
    prepared: Prepared,
    feeds: Feeds,
    *,
    stop_without_gain: bool = False,
    checkpoint: Checkpoint | None = None,
    devices: Devices = ALONE,
    log: Log | None = None,
) -> Trained:
    """Train through all stages; afterwards the network has the weights of the best epoch.

    The best epoch is the one with the highest validation score (accuracy, mAP or R², by task) over
    all stages, the start included. A stage continues from where the one before ended. After every
    stage the digests of all frozen tensors are compared with those at its start.

    Args:
        prepared: the plan.
        feeds: the network, and the items to train it on.
        stop_without_gain: see :class:`~headstart.finetuning.recipe.Recipe`.
        checkpoint: where the state is saved after every epoch, and resumed from; None saves none.
        devices: that share every batch; this process is one of them.
        log: called on the main device with all records so far, whenever an epoch has been saved
            and when a training is resumed.

    Raises:
        FreezeError: something frozen moved.
        ConfigError: the checkpoint belongs to another plan.
    """
    return _Training(prepared, feeds, stop_without_gain, checkpoint, devices, log).run()


class _Training:
    """A training and where it is: the epochs so far, the best of them, the current stage."""

    def __init__(
        self,
        prepared: Prepared,
        feeds: Feeds,
        stop_without_gain: bool,
        checkpoint: Checkpoint | None,
        devices: Devices,
        log: Log | None,
    ) -> None:
        self.prepared, self.feeds, self.network = prepared, feeds, feeds.network
        self.figure = feeds.network.objective.figure
        self.stop_without_gain, self.checkpoint = stop_without_gain, checkpoint
        self.devices, self.log = devices, log
        self.reporter = feeds.reporter if devices.main else SilentReporter()
        self.state = TrainingState(self.network, prepared.targets)
        self.records: list[EpochRecord] = []
        self.outcomes: list[StageOutcome] = []
        self.notes: list[str] = []
        self.best: EpochRecord | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.handle: FreezeHandle | None = None
        self.stale = 0  # epochs since the best one of the stage
        self.seconds = 0.0  # spent in the stage

    def run(self) -> Trained:
        saved = None if self.checkpoint is None else self.checkpoint.load()
        modes = [(part, part.training) for part in self.network.modules()]
        # A user's module is trained in place. For the same call to resume after an interruption,
        # the module must be again what the checkpoint's identity was computed from.
        kept = (
            {} if self.checkpoint is None else {n: t.cpu() for n, t in self.state.weights().items()}
        )
        try:
            for number in range(len(self.prepared.targets)):
                if saved is not None and number < saved.stage:
                    continue
                resumed = saved if saved is not None and number == saved.stage else None
                if not self._stage(number, resumed):
                    break
        except BaseException:
            self._release()
            self.state.load_weights(kept)
            raise
        finally:
            self._release()
            for part, training in modes:
                part.training = training
        assert self.best is not None
        self.state.load_weights(self.best_weights)
        return Trained(
            tuple(self.records),
            tuple(self.outcomes),
            self.best,
            tuple(self.notes),
            self.network.objective.loss_label,
        )

    # One stage

    def _stage(self, number: int, saved: Saved | None) -> bool:
        """Train one stage; return whether the recipe continues."""
        target, cut = self.prepared.targets[number], self.prepared.cuts[number]
        stage, begun = target.stage, time.perf_counter()
        self._release()
        if saved is None:
            self._prepare_statistics(number)
        else:
            self.state.load_model(saved.state)
            _stamp_reestimated(self.network, stage)
        self.handle = freeze(self.network, target.policies)
        opened = (  # several devices divide the rows that are missing
            self.feeds.items(stage)
            if cut is None
            else self.feeds.stored(stage, cut, self.prepared.memory)
        )
        self.state.begin_stage(target)
        self.stale, self.seconds = 0, 0.0
        if saved is not None:
            self._resume(saved)
        elif self.best is None:
            self._validate_start(opened)
        self.seconds += time.perf_counter() - begun
        ended = self._epochs(number, stage, opened)
        proof = str(self.handle.verify())
        done = self._epochs_done(number)
        self.outcomes.append(
            StageOutcome(stage.name, done, self.seconds, opened.stored, proof, ended)
        )
        if ended.startswith("diverged"):
            return False
        last = number + 1 == len(self.prepared.targets)
        if self.stop_without_gain and not last and not self._gained(number):
            self._note(
                f"stage '{stage.name}' did not raise the validation {self.figure}: the recipe ends"
                " here"
            )
            return False
        return True

    def _prepare_statistics(self, number: int) -> None:
        """Re-estimate the statistics of the backbone, where the stage calls for it."""
        stage = self.prepared.targets[number].stage
        if self.best is None and stage.norm == "reestimated":
            # The start is validated first: its head was made with the statistics as they were.
            self._validate_start(self.feeds.items(stage))
        before = self.prepared.targets[number - 1].stage.norm if number else "running"
        if stage.norm == "reestimated" and before != "reestimated":
            self.devices.once(self.feeds.reestimate)
        self.devices.share(self.network)
        if not self.devices.main:
            _stamp_reestimated(self.network, stage)

    def _validate_start(self, opened: StageFeeds) -> None:
        """Validate the network before anything has been trained: this, too, may be the best."""
        loss, score = validate(self.feeds, opened, Stage(), self.devices)
        self.best = EpochRecord(-1, "start", 0, None, None, loss, score, 0.0, 0.0, self.figure)
        self.records.append(self.best)
        self.best_weights = self.state.weights()
        self._log()

    def _epochs(self, number: int, stage: Stage, opened: StageFeeds) -> str:
        """Train the epochs that are left; return why the stage ended."""
        feeds, state, devices = self.feeds, self.state, self.devices
        first = self._epochs_done(number) + 1
        no_gain = f"no higher validation {self.figure} in {count(stage.patience or 0, 'epoch')}"
        if first <= stage.epochs and self._is_stale(stage):
            return no_gain
        items = len(feeds.train) * (stage.epochs - first + 1)
        with self.reporter.task(f"train '{stage.name}'", items, "items") as task:
            for epoch in range(first, stage.epochs + 1):
                begun = time.perf_counter()
                with rng.seeded(feeds.seed, number, epoch, feeds.device, devices.rank):
                    loss, score = train_epoch(
                        feeds, opened, stage, (number, epoch), state, devices, task
                    )
                if not math.isfinite(loss):
                    self._note(
                        f"stage '{stage.name}' diverged in epoch {epoch}: the loss is {loss};"
                        " the best epoch before it is kept, and a lower lr may help"
                    )
                    return f"diverged in epoch {epoch}"
                with state.average.applied() if state.average else contextlib.nullcontext():
                    figures = validate(feeds, opened, stage, devices)
                    self._record(number, epoch, stage, (loss, score), figures, begun)
                self._save(number, epoch)
                self._log()
                if self._is_stale(stage) and epoch < stage.epochs:
                    return no_gain
        return "its one epoch" if stage.epochs == 1 else f"all {stage.epochs} epochs"

    def _record(
        self,
        number: int,
        epoch: int,
        stage: Stage,
        train: tuple[float, float],
        validation: tuple[float, float],
        begun: float,
    ) -> None:
        """Record an epoch; keep its weights if it is the best so far."""
        seconds = time.perf_counter() - begun
        self.seconds += seconds
        rate = float(self.state.optimizer.param_groups[-1]["lr"])
        record = EpochRecord(
            number, stage.name, epoch, *train, *validation, rate, seconds, self.figure
        )
        # Patience counts within the stage: a stage that begins below the best may still rise.
        earlier = [r.validation_score for r in self.records if r.stage == number]
        rises = not earlier or record.validation_score > max(earlier)
        self.records.append(record)
        self.stale = 0 if rises else self.stale + 1
        if record.better_than(self.best):
            self.best = record
            self.best_weights = self.state.weights()
        self.reporter.note(
            f"{stage.name}, epoch {epoch} of {stage.epochs}: training {train[0]:.4f}"
            f" ({self._worded(train[1])}), validation {validation[0]:.4f}"
            f" ({self._worded(validation[1])}), {seconds:.1f} s"
        )

    def _worded(self, score: float) -> str:
        """Return a score as it stands beside its loss; what is no accuracy is named."""
        worded = self.network.objective.worded(score)
        return worded if self.figure == ACCURACY else f"{self.figure} {worded}"

    def _epochs_done(self, number: int) -> int:
        return self.records[-1].epoch if self.records[-1].stage == number else 0

    def _is_stale(self, stage: Stage) -> bool:
        return stage.patience is not None and self.stale >= stage.patience

    def _gained(self, number: int) -> bool:
        """Return whether a stage has raised the validation score."""
        own = [r.validation_score for r in self.records if r.stage == number]
        before = [r.validation_score for r in self.records if r.stage < number]
        return max(own, default=-math.inf) > max(before)

    def _release(self) -> None:
        if self.handle is not None:
            self.handle.release()
            self.handle = None

    # Saving and resuming

    def _save(self, stage: int, epoch: int) -> None:
        if self.checkpoint is None or not self.devices.main:
            return
        assert self.best is not None
        self.checkpoint.save(
            Saved(
                stage=stage,
                epoch=epoch,
                stale=self.stale,
                records=tuple(self.records),
                outcomes=tuple(self.outcomes),
                best=self.best,
                ema_steps=self.state.average.steps if self.state.average else 0,
                seconds=self.seconds,
                decisions=self.prepared.decisions,
                state=self.state.tensors(),
                best_weights=self.best_weights,
            )
        )

    def _resume(self, saved: Saved) -> None:
        """Restore everything but the weights, which the stage needed earlier."""
        self.records, self.outcomes = list(saved.records), list(saved.outcomes)
        self.best, self.stale, self.seconds = saved.best, saved.stale, saved.seconds
        device = self.feeds.device
        self.best_weights = {name: t.to(device) for name, t in saved.best_weights.items()}
        self.state.load_optimizer(saved.state, saved.ema_steps)
        stage = self.prepared.targets[saved.stage].stage
        self._note(f"continuing after epoch {saved.epoch} of stage '{stage.name}'")
        self._log()

    def _log(self) -> None:
        if self.log is not None and self.devices.main:
            self.log(tuple(self.records))

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.reporter.note(text)


def _stamp_reestimated(network: nn.Module, stage: Stage) -> None:
    """Mark statistics that come from elsewhere as the re-estimated ones they are."""
    if stage.norm == "reestimated":
        for module in network.modules():
            if is_running_norm(module):
                stamp(module)


__all__ = ["train"]
