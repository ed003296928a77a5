"""Where a fine-tuning starts: a head from a probe, and the block that surgical training thaws."""

from __future__ import annotations

import numpy as np

from headstart.commands.finetune.items import Items
from headstart.commands.finetune.options import FinetuneConfig
from headstart.commands.scoring import named_scores, outputs_of
from headstart.commands.session import Session
from headstart.core.records import Baseline, Reference
from headstart.core.wording import count
from headstart.data import Split
from headstart.evaluation import accuracy_score
from headstart.finetuning import Classifier
from headstart.finetuning.feeds import ItemFeed
from headstart.finetuning.gradients import relative_gradients
from headstart.heads import LinearHead, TrainingRows, head_kind
from headstart.heads.thresholds import with_thresholds

_GRADIENT_ITEMS = 256


def fit_probe(
    items: Items, config: FinetuneConfig, session: Session
) -> tuple[LinearHead, tuple[str, ...]]:
    """Train the probe on the features of the training items; return it with notes about it."""
    task = items.train.task
    kind = head_kind(config.probe_for(task))
    rows = TrainingRows(
        items.probe_features("train"),
        items.train.y,
        len(items.train.classes),
        task=task,
        keys=items.train.ids,
        groups=items.train.groups,
        names=items.train.classes,
        seed=session.run.seed,
        reporter=session.reporter,
    )
    shared = {"folds": config.folds, "class_weight": config.class_weight}
    trained = kind.fit(rows, kind.settings({}, **shared))
    trained = with_thresholds(trained, rows, config.threshold)
    assert isinstance(trained.head, LinearHead)
    return trained.head, trained.notes


def score_probe(head: LinearHead, items: Items, config: FinetuneConfig) -> Baseline | Reference:
    """Score the probe on the test split."""
    rows, test = items.probe_features("test"), items.test
    what = head_kind(config.probe_for(test.task)).summary.partition(",")[0]
    if test.task == "regression":  # a summary says what becomes of classes
        what = what.partition(" on ±1")[0]
    name, about = "linear probe", f"{what} on the frozen backbone, where the recipe starts"
    if test.targets is not None:
        return Reference(name, about, named_scores(head, test, outputs_of(head, rows)))
    predicted = head.predict(rows)
    return Baseline(name, about, accuracy_score(test.labels, predicted, groups=test.groups))


def surgical_block(
    network: Classifier, split: Split, seed: int, workers: int | None
) -> tuple[str, str]:
    """Return the block group with the largest relative gradient, and a note that says why.

    The criterion is that of Lee et al., Surgical Fine-Tuning Improves Adaptation to Distribution
    Shifts (2023), section 4: the norm of a block's gradient relative to that of its weights.

    Args:
        network: with the head that it starts from.
        split: the training items; 256 of them are measured.
        seed: decides which.
        workers: threads that decode.
    """
    device = network.source.device
    feed = ItemFeed(split, network.source.inputs, device, workers=workers)
    order = np.random.default_rng([abs(seed), 2]).permutation(len(split))[:_GRADIENT_ITEMS]
    targets = network.objective.targets(split, device)
    found = relative_gradients(network, feed, targets, order)
    best = max(found, key=lambda item: item.ratio)
    others = sorted((item.ratio for item in found if item is not best), reverse=True)
    if not others:
        return best.name, f"surgical: '{best.name}' is the only block"
    return best.name, (
        f"surgical: '{best.name}' has the largest gradient relative to its weights"
        f" ({best.ratio:.3g}; the next {others[0]:.3g}), measured on {count(len(order), 'item')}"
    )


__all__ = ["fit_probe", "score_probe", "surgical_block"]
