"""Where a fine-tuning starts: a head from a probe, and the block that surgical training thaws."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.commands.finetune.settings import FinetuneConfig
from headstart.core.progress import Reporter
from headstart.core.records import Baseline
from headstart.data import Split
from headstart.evaluation import accuracy_score
from headstart.finetuning import Classifier
from headstart.finetuning.feeds import ItemFeed
from headstart.finetuning.gradients import relative_gradients
from headstart.heads import LinearHead, TrainingRows, head_kind

_GRADIENT_ITEMS = 256


def probe_head(
    rows: NDArray[np.float32],
    part: Split,
    classes: tuple[str, ...],
    config: FinetuneConfig,
    reporter: Reporter,
) -> tuple[LinearHead, tuple[str, ...]]:
    """Return a linear head on the features of the training part, and notes about it.

    Args:
        rows: features of the part, ``(n, d)``.
        part: the part that trains.
        classes: of the data.
        config: which kind of head, seed and folds.
        reporter: shown progress.
    """
    kind = head_kind(config.probe)
    trained = kind.fit(
        TrainingRows(
            rows,
            part.labels,
            len(classes),
            names=classes,
            seed=config.seed,
            reporter=reporter,
        ),
        kind.settings({}, folds=config.folds),
    )
    assert isinstance(trained.head, LinearHead)
    return trained.head, trained.notes


def probe_baseline(
    head: LinearHead, rows: NDArray[np.float32], test: Split, config: FinetuneConfig
) -> Baseline:
    """Score the probe on the test split, whose features are ``(n, d)``."""
    what = head_kind(config.probe).summary.partition(",")[0]
    return Baseline(
        "linear probe",
        f"{what} on the frozen backbone, where the recipe starts",
        accuracy_score(test.labels, head.predict(rows)),
    )


def surgical_block(
    network: Classifier, part: Split, seed: int, workers: int | None
) -> tuple[str, str]:
    """Return the block group with the largest relative gradient, and a note that says why.

    The criterion is that of Lee et al., Surgical Fine-Tuning Improves Adaptation to Distribution
    Shifts (2023), section 4: the norm of a block's gradient beside that of its weights.

    Args:
        network: with the head that it starts from.
        part: the part that trains; 256 items of it are measured.
        seed: decides which.
        workers: threads that decode.
    """
    device = network.source.device
    feed = ItemFeed(part, network.source.inputs, device, workers=workers)
    order = np.random.default_rng([abs(seed), 2]).permutation(len(part))[:_GRADIENT_ITEMS]
    labels = torch.from_numpy(part.labels).to(device)
    found = relative_gradients(network, feed, labels, order)
    best = max(found, key=lambda item: item.ratio)
    others = sorted((item.ratio for item in found if item is not best), reverse=True)
    if not others:
        return best.name, f"surgical: '{best.name}' is the only block"
    return best.name, (
        f"surgical: '{best.name}' has the largest gradient beside its weights"
        f" ({best.ratio:.3g}; the next {others[0]:.3g}), measured on {len(order)} items"
    )


__all__ = ["probe_baseline", "probe_head", "surgical_block"]
