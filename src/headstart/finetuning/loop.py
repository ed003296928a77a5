"""The training loop: one, for every recipe, from images and from stored rows alike."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Mapping

import torch
from torch import Tensor

from headstart.core.progress import Reporter, SilentReporter
from headstart.finetuning import chance
from headstart.finetuning.checkpoint import Checkpoint, Saved
from headstart.finetuning.epoch import train_epoch, validate
from headstart.finetuning.network import Classifier
from headstart.finetuning.optimizers import (
    Average,
    build_optimizer,
    optimizer_tensors,
    restore_optimizer,
)
from headstart.finetuning.outcome import EpochRecord, StageOutcome, Trained
from headstart.finetuning.roads import Road
from headstart.finetuning.setup import Setup
from headstart.finetuning.stages import Stage
from headstart.finetuning.targets import Target
from headstart.freezing import FreezeHandle, freeze, stamps
from headstart.modules.kinds import is_running_norm

_MODEL, _OPTIMIZER, _AVERAGE = "model:", "optimizer:", "average:"


def train(setup: Setup, checkpoint: Checkpoint | None, reporter: Reporter) -> Trained:
    """Train through all stages; the network has the best epoch's weights in the end.

    The best epoch is that of the highest validation accuracy over all stages, the start included.
    A stage goes on from where the last one ended. After every stage the digests of all frozen
    tensors are compared with those at its start.

    Args:
        setup: network, stages, data.
        checkpoint: where the state is kept after every epoch, and found again; None keeps none.
        reporter: told of every epoch.

    Raises:
        FreezeError: something frozen moved.
        ConfigError: the checkpoint belongs to another plan.
    """
    return _Training(setup, checkpoint, reporter).run()


class _Training:
    """The state of a training between epochs."""

    def __init__(self, setup: Setup, checkpoint: Checkpoint | None, reporter: Reporter) -> None:
        self.setup, self.checkpoint, self.devices = setup, checkpoint, setup.devices
        self.reporter = reporter if setup.devices.main else SilentReporter()
        self.network = setup.network
        self.moving = _moving(setup)
        self.records: list[EpochRecord] = []
        self.outcomes: list[StageOutcome] = []
        self.notes: list[str] = []
        self.optimizer: torch.optim.Optimizer | None = None
        self.average: Average | None = None
        self.best: EpochRecord | None = None
        self.best_weights: dict[str, Tensor] = {}
        self.handle: FreezeHandle | None = None
        self.stale = 0
        self.seconds = 0.0

    def run(self) -> Trained:
        saved = None if self.checkpoint is None else self.checkpoint.load()
        modes = [(part, part.training) for part in self.network.modules()]
        # A module of the user's is trained in place. Where the same call is to go on after an
        # interruption, it has to be again what the checkpoint's identity was taken of.
        kept = {} if self.checkpoint is None else {n: t.cpu() for n, t in self._weights().items()}
        try:
            for number in range(len(self.setup.targets)):
                if saved is not None and number < saved.stage:
                    continue
                resumed = saved if saved is not None and number == saved.stage else None
                if not self._stage(number, resumed):
                    break
        except BaseException:
            self._release()
            self._load(kept)
            raise
        finally:
            self._release()
            for part, training in modes:
                part.training = training
        assert self.best is not None
        self._load(self.best_weights)
        return Trained(tuple(self.records), tuple(self.outcomes), self.best, tuple(self.notes))

    # One stage

    def _stage(self, number: int, saved: Saved | None) -> bool:
        """Train one stage; return whether the recipe goes on."""
        setup, target = self.setup, self.setup.targets[number]
        begun = time.perf_counter()
        self._release()
        if saved is None:
            if self.best is None and target.stage.norm == "reestimated":
                # What has not trained yet has the statistics that its head was made with.
                self._start(setup.open_images(number))
            self.devices.once(lambda: setup.prepare(number))
            self.devices.share(self.network)
            if not self.devices.main:
                _stamp_again(self.network, target)
        else:
            self._load(_part(saved.state, _MODEL))
            _stamp_again(self.network, target)
        self.handle = freeze(self.network, target.policies)
        road = setup.open_road(number)  # devices divide the rows that are missing
        self.optimizer = build_optimizer(self.network, target.stage, target.rates, self.optimizer)
        ema = target.stage.ema
        self.average = Average(self.network, target.freeze.trainable, ema) if ema else None
        self.stale, self.seconds = 0, 0.0
        if saved is not None:
            self._resume(saved)
        elif self.best is None:
            self._start(road)
        self.seconds += time.perf_counter() - begun
        ended = self._epochs(number, target.stage, road)
        proof = str(self.handle.verify())
        done = self.records[-1].epoch if self.records[-1].stage == number else 0
        self.outcomes.append(
            StageOutcome(target.stage.name, done, self.seconds, road.cached, proof, ended)
        )
        if ended.startswith("diverged"):
            return False
        if setup.stop_without_gain and not self._gained(number) and number + 1 < len(setup.targets):
            self._note(
                f"stage '{target.stage.name}' did not raise the validation accuracy: the recipe"
                " ends here"
            )
            return False
        return True

    def _gained(self, number: int) -> bool:
        """Return whether a stage has raised the validation accuracy."""
        own = [r.validation_accuracy for r in self.records if r.stage == number]
        before = [r.validation_accuracy for r in self.records if r.stage < number]
        return max(own, default=0.0) > max(before)

    def _release(self) -> None:
        if self.handle is not None:
            self.handle.release()
            self.handle = None

    def _start(self, road: Road) -> None:
        """Validate the network before anything has trained: that, too, may be the best."""
        loss, accuracy = validate(self.setup, road, Stage())
        self.best = EpochRecord(-1, "start", 0, None, None, loss, accuracy, 0.0, 0.0)
        self.records.append(self.best)
        self.best_weights = self._weights()
        self._log()

    def _epochs(self, number: int, stage: Stage, road: Road) -> str:
        """Train the epochs that are left; return why the stage ended."""
        setup = self.setup
        assert self.optimizer is not None
        first = self.records[-1].epoch + 1 if self.records[-1].stage == number else 1
        count = len(setup.train_labels)
        ended = f"all {stage.epochs} epochs"
        if first <= stage.epochs and self._is_stale(stage):
            return self._stale_end(stage)
        with self.reporter.task(
            f"train '{stage.name}'", count * (stage.epochs - first + 1), "items"
        ) as task:
            for epoch in range(first, stage.epochs + 1):
                begun = time.perf_counter()
                with chance.drawn_from(setup.seed, number, epoch, setup.device, self.devices.rank):
                    loss, accuracy = train_epoch(
                        setup, (number, epoch), road, self.optimizer, self.average, task
                    )
                if not math.isfinite(loss):
                    self._note(
                        f"stage '{stage.name}' diverged in epoch {epoch}: the loss is {loss};"
                        " the best epoch before it is kept, and a lower lr may help"
                    )
                    return f"diverged in epoch {epoch}"
                with self.average.applied() if self.average else contextlib.nullcontext():
                    figures = validate(setup, road, stage)
                    self._record(number, epoch, stage, (loss, accuracy), figures, begun)
                self._save(number, epoch)
                self._log()
                if self._is_stale(stage) and epoch < stage.epochs:
                    ended = self._stale_end(stage)
                    break
        return ended

    def _is_stale(self, stage: Stage) -> bool:
        return stage.patience is not None and self.stale >= stage.patience

    def _stale_end(self, stage: Stage) -> str:
        return f"no higher validation accuracy in {stage.patience} epochs"

    def _record(
        self,
        number: int,
        epoch: int,
        stage: Stage,
        train: tuple[float, float],
        validation: tuple[float, float],
        begun: float,
    ) -> None:
        assert self.optimizer is not None
        seconds = time.perf_counter() - begun
        self.seconds += seconds
        record = EpochRecord(
            number,
            stage.name,
            epoch,
            *train,
            *validation,
            float(self.optimizer.param_groups[-1]["lr"]),
            seconds,
        )
        self.records.append(record)
        earlier = [r.validation_accuracy for r in self.records[:-1] if r.stage == number]
        # Patience counts within the stage: a stage that begins below the best may still rise.
        rises = not earlier or record.validation_accuracy > max(earlier)
        self.stale = 0 if rises else self.stale + 1
        if record.better_than(self.best):
            self.best = record
            self.best_weights = self._weights()
        self.reporter.note(
            f"{stage.name}, epoch {epoch} of {stage.epochs}: training {train[0]:.4f}"
            f" ({100 * train[1]:.1f} %), validation {validation[0]:.4f}"
            f" ({100 * validation[1]:.1f} %), {seconds:.1f} s"
        )

    # State

    def _weights(self) -> dict[str, Tensor]:
        """Copy every tensor that may move in some stage."""
        named = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        return {name: named[name].detach().clone() for name in self.moving}

    def _load(self, weights: Mapping[str, Tensor]) -> None:
        named = {**dict(self.network.named_parameters()), **dict(self.network.named_buffers())}
        with torch.no_grad():
            for name, value in weights.items():
                named[name].copy_(value)

    def _save(self, stage: int, epoch: int) -> None:
        if self.checkpoint is None or not self.devices.main:
            return
        assert self.optimizer is not None
        assert self.best is not None
        state = {_MODEL + name: value for name, value in self._weights().items()}
        for name, value in optimizer_tensors(self.optimizer, self.network).items():
            state[_OPTIMIZER + name] = value
        shadow = self.average.shadow if self.average else {}
        state |= {_AVERAGE + name: value for name, value in shadow.items()}
        self.checkpoint.save(
            Saved(
                stage=stage,
                epoch=epoch,
                stale=self.stale,
                records=tuple(self.records),
                outcomes=tuple(self.outcomes),
                best=self.best,
                ema_steps=self.average.steps if self.average else 0,
                seconds=self.seconds,
                decisions=self.setup.decisions,
                state=state,
                best_weights=self.best_weights,
            )
        )

    def _resume(self, saved: Saved) -> None:
        """Take up everything but the weights, which the stage needed before."""
        assert self.optimizer is not None
        self.records, self.outcomes = list(saved.records), list(saved.outcomes)
        self.best, self.stale, self.seconds = saved.best, saved.stale, saved.seconds
        device = self.setup.device
        self.best_weights = {name: t.to(device) for name, t in saved.best_weights.items()}
        restore_optimizer(self.optimizer, self.network, _part(saved.state, _OPTIMIZER))
        if self.average is not None:
            self.average.restore(_part(saved.state, _AVERAGE), saved.ema_steps)
        self._note(
            f"going on after epoch {saved.epoch} of stage"
            f" '{self.setup.targets[saved.stage].stage.name}'"
        )
        self._log()

    def _log(self) -> None:
        if self.devices.main:
            self.setup.log(tuple(self.records))

    def _note(self, text: str) -> None:
        self.notes.append(text)
        self.reporter.note(text)


def _moving(setup: Setup) -> tuple[str, ...]:
    """Return the parameters that train in some stage, and all buffers."""
    trained = {name for target in setup.targets for name in target.freeze.trainable}
    names = [name for name, _ in setup.network.named_parameters() if name in trained]
    return (*names, *(name for name, _ in setup.network.named_buffers()))


def _part(tensors: Mapping[str, Tensor], kind: str) -> dict[str, Tensor]:
    return {name.removeprefix(kind): t for name, t in tensors.items() if name.startswith(kind)}


def _stamp_again(network: Classifier, target: Target) -> None:
    """Mark statistics that the checkpoint brought back as the re-estimated ones they are."""
    if target.stage.norm != "reestimated":
        return
    for module in network.modules():
        if is_running_norm(module):
            stamps.stamp(module)


__all__ = ["train"]
