"""What a training leaves behind, in plain values."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.core.records import ACCURACY, FIELDS, Curve, to_plain


@dataclass(frozen=True)
class EpochRecord:
    """Figures of one epoch; epoch 0 of stage -1 is the start, before any training.

    Attributes:
        stage: number of the stage, from 0.
        name: its name.
        epoch: number within the stage, from 1.
        train_loss, train_score: over the epoch's batches, with dropout and augmentation; None for
            the start.
        validation_loss, validation_score: at the end of the epoch, without either.
        rate: the learning rate of the head, or of the group nearest to it, at the end.
        seconds: wall time of training and validation.
        figure: what the scores are: ``accuracy``, ``balanced accuracy``, ``mAP`` or ``R²``.
    """

    stage: int
    name: str
    epoch: int
    train_loss: float | None
    train_score: float | None
    validation_loss: float
    validation_score: float
    rate: float
    seconds: float
    figure: str = ACCURACY

    def better_than(self, other: EpochRecord | None) -> bool:
        """Whether it has a higher validation score, or an equal one at a lower loss."""
        if other is None:
            return True
        mine = (self.validation_score, -self.validation_loss)
        return mine > (other.validation_score, -other.validation_loss)

    @property
    def validation_accuracy(self) -> float:
        """The validation score of one class an item.

        Raises:
            AttributeError: the score is another figure.
        """
        if self.figure != ACCURACY:
            raise AttributeError(f"the score is {self.figure}: use validation_score")
        return self.validation_score

    def plain(self) -> dict[str, Any]:
        """Return it in plain values, the scores under the name of their figure."""
        values: dict[str, Any] = to_plain(self)
        del values["figure"]
        name = FIELDS[self.figure]
        return {key.replace("score", name): value for key, value in values.items()}


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
    loss_label: str = "loss (nats)"

    @property
    def curves(self) -> tuple[Curve, ...]:
        """Loss and score of both parts against the epoch, counted over all stages."""
        return curves_of(self.records, self.best, self.loss_label)


def curves_of(
    records: Sequence[EpochRecord], best: EpochRecord, loss_label: str = "loss (nats)"
) -> tuple[Curve, ...]:
    """Return the curves of records; the start is epoch 0."""
    chosen = float(records.index(best))
    found = []
    for part in ("train", "validation"):
        for kind, figure, label in (
            ("loss", "loss", loss_label),
            ("score", best.figure, best.figure),
        ):
            values = [getattr(record, f"{part}_{kind}") for record in records]
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
    nan = {"validation_loss", "validation_score", "rate", "seconds"}
    older = {"train_accuracy": "train_score", "validation_accuracy": "validation_score"}
    values = {older.get(key, key): value for key, value in values.items()}
    filled: dict[str, Any] = {
        key: float("nan") if value is None and key in nan else value
        for key, value in values.items()
    }
    return EpochRecord(**filled)


__all__ = ["EpochRecord", "StageOutcome", "Trained", "curves_of", "record_from"]
