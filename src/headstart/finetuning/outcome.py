"""What a training leaves behind, in plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.core.records import Curve


@dataclass(frozen=True)
class EpochRecord:
    """Figures of one epoch; epoch 0 of stage -1 is the start, before any training.

    Attributes:
        stage: number of the stage, from 0.
        name: its name.
        epoch: number within the stage, from 1.
        train_loss, train_accuracy: means over the epoch's batches, with dropout and augmentation;
            None for the start.
        validation_loss, validation_accuracy: at the end of the epoch, without either.
        rate: the learning rate of the head, or of the group nearest to it, at the end.
        seconds: wall time of training and validation.
    """

    stage: int
    name: str
    epoch: int
    train_loss: float | None
    train_accuracy: float | None
    validation_loss: float
    validation_accuracy: float
    rate: float
    seconds: float

    def better_than(self, other: EpochRecord | None) -> bool:
        """Whether it has a higher validation accuracy, or an equal one at a lower loss."""
        if other is None:
            return True
        mine = (self.validation_accuracy, -self.validation_loss)
        return mine > (other.validation_accuracy, -other.validation_loss)


@dataclass(frozen=True)
class StageOutcome:
    """How a stage went.

    Attributes:
        name: its name.
        epochs: how many were trained.
        seconds: wall time of them, and of storing rows before.
        cached: whether it trained on stored rows.
        proof: what the digests of the frozen tensors said at its end.
        ended: why it ended.
    """

    name: str
    epochs: int
    seconds: float
    cached: bool
    proof: str
    ended: str


@dataclass(frozen=True)
class Trained:
    """A whole training: every epoch, every stage, and the epoch whose weights are kept."""

    records: tuple[EpochRecord, ...]
    stages: tuple[StageOutcome, ...]
    best: EpochRecord
    notes: tuple[str, ...]

    @property
    def curves(self) -> tuple[Curve, ...]:
        """Loss and accuracy of both parts against the epoch, counted over all stages."""
        return curves_of(self.records, self.best)


def curves_of(records: Sequence[EpochRecord], best: EpochRecord) -> tuple[Curve, ...]:
    """Return the curves of records; the start is epoch 0."""
    chosen = float(records.index(best))
    found = []
    for part in ("train", "validation"):
        for figure, label in (("loss", "loss (nats)"), ("accuracy", "accuracy")):
            values = [getattr(record, f"{part}_{figure}") for record in records]
            points = [(float(i), v) for i, v in enumerate(values) if v is not None]
            found.append(
                Curve(
                    name=f"{part} {figure}",
                    x=tuple(x for x, _ in points),
                    y=tuple(float(y) for _, y in points),
                    x_label="epoch",
                    y_label=label,
                    chosen=chosen,
                )
            )
    return tuple(found)


def record_from(values: Mapping[str, Any]) -> EpochRecord:
    """Rebuild a record from its plain form; JSON writes NaN as null, so null means not a number."""
    nan = {"validation_loss", "validation_accuracy", "rate", "seconds"}
    filled: dict[str, Any] = {
        key: float("nan") if value is None and key in nan else value
        for key, value in values.items()
    }
    return EpochRecord(**filled)


__all__ = ["EpochRecord", "StageOutcome", "Trained", "curves_of", "record_from"]
