"""A warning where names of files or columns show groups that the split tears apart."""

from __future__ import annotations

from headstart.commands.embedding import Embedded
from headstart.core.wording import clean, count
from headstart.data.group_hints import GroupHint, group_hints
from headstart.evaluation.item_scores import ITEM_FIGURES
from headstart.heads.group_check import GroupEffect, group_effect

_LEAST = 0.01


def torn_group_notes(embedded: Embedded, seed: int) -> tuple[str, ...]:
    """Say by how much a score flatters new groups, if something shows groups that it knows.

    Hints come from names and columns; each is measured on the training rows by cross-validation,
    once with groups torn apart and once with groups kept whole. Only what makes a difference
    beyond chance, and of a point at least, is told: the largest.
    """
    train = embedded.train
    hints = group_hints(train, embedded.test)
    measured: list[tuple[GroupHint, GroupEffect]] = []
    for hint in hints:
        effect = group_effect(
            embedded.train_rows(),
            train.y,
            len(train.classes),
            hint.train,
            task=train.task,
            keys=train.ids,
            seed=seed,
        )
        if effect is None or effect.difference.interval is None:
            continue
        if effect.difference.value >= _LEAST and effect.difference.interval.low > 0:
            measured.append((hint, effect))
    if not measured:
        return ()
    worst = max(measured, key=lambda pair: pair[1].difference.value)
    return (_told(*worst, len(embedded.test), ITEM_FIGURES[train.task]),)


def _told(hint: GroupHint, effect: GroupEffect, n_test: int, figure: str) -> str:
    what = "file names show"
    if hint.option != "group_pattern":
        what = f"the column '{hint.value}' shows"
    torn, whole = (f"{100 * share:.1f} %" for share in (effect.torn, effect.whole))
    return (
        f"{what} groups of items that belong together (such as '{clean(hint.example)}'), and"
        f" {hint.torn:,} of {count(n_test, 'test item')} have others of their group in the"
        f" training split: cross-validated {figure} is {torn} with groups split across folds and"
        f" {whole} with groups kept together, so the score is too optimistic for new groups; keep"
        f" groups together with {hint.option}='{hint.value}'"
    )


__all__ = ["torn_group_notes"]
