"""Whether a head is fitted by sums over parts of the rows, and who adds them up."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import cast

import numpy as np

from headstart.backbones import Backbone
from headstart.cache.parts import PART_ROWS, StoredPart
from headstart.commands.embedding import Embedded
from headstart.commands.fit.options import FitConfig
from headstart.commands.session import Session
from headstart.core.errors import ConfigError
from headstart.core.wording import count, format_bytes
from headstart.evaluation.targets import IntArray
from headstart.evaluation.tasks import CLASSIFICATION
from headstart.heads.contract import HeadKind
from headstart.heads.merges import HERE, Reduction
from headstart.heads.source import memory_share
from headstart.runners.reducing import over_processes, over_ray
from headstart.runners.table import LOCAL
from headstart.store import FeatureSet

_LEAST_ROWS = 1024  # of a part
_PARTS_EACH = 8  # that a worker has, where there are few rows


def is_reduced(kind: HeadKind, config: FitConfig, embedded: Embedded, session: Session) -> str:
    """Return why a head is fitted by sums over parts; empty where it is fitted in this process.

    Raises:
        ConfigError: it was asked for, and cannot be.
    """
    rows = embedded.train_rows()
    size = rows.nbytes
    if config.reduce == "never" or (
        config.reduce == "auto" and (session.run.runner == LOCAL or size <= memory_share())
    ):
        return ""
    against = _against(kind, config, embedded)
    if against and config.reduce == "always":
        raise ConfigError(
            (f"reduce='always' is not possible: {against}",),
            hint="omit it: features larger than memory are read from disk in blocks",
        )
    if against:
        session.say(
            f"the head is fitted in this process, reading its features in blocks: {against}"
        )
        return ""
    if config.reduce == "always":
        return "as requested"
    return f"the features take {format_bytes(size)}, more than 0.4 of the free memory"


def _against(kind: HeadKind, config: FitConfig, embedded: Embedded) -> str:
    """Return why the sums do not give the head that this process would fit."""
    if kind.reduce is None:
        return f"the head '{kind.name}' needs all rows in one place; linear, ridge and lda do not"
    if embedded.train.task != CLASSIFICATION.name:
        return "only classification can be fitted this way"
    if config.options().get("class_weight") is not None:
        return "rows have weights (class_weight)"
    if not isinstance(embedded.train_rows(), FeatureSet):
        return "columns of the table are joined to the features"
    chosen = config.head_options.get("alpha", "auto")
    if kind.name == "ridge" and embedded.train.groups is not None and chosen == "auto":
        return (
            "ridge would choose its penalty by leaving out single rows, not whole groups;"
            " give alpha"
        )
    return ""


@contextmanager
def reduction(
    why: str, kind: HeadKind, embedded: Embedded, network: Backbone, session: Session
) -> Iterator[Reduction]:
    """Start whoever adds up; say so.

    Args:
        why: see :func:`is_reduced`.
        kind: of the head.
        embedded: the rows.
        network: that they are of.
        session: with the runner.
    """
    run = session.run
    rows = cast(FeatureSet, embedded.train_rows())
    labels = np.asarray(embedded.train.labels, dtype=np.int64)
    space = session.cache.space(network, run.extraction())
    workers = run.runner_workers or os.cpu_count() or 1
    each = -(-len(rows) // (workers * _PARTS_EACH))
    size = min(PART_ROWS, max(_LEAST_ROWS, each))

    def divide(chosen: IntArray) -> list[StoredPart]:
        return [
            StoredPart(space, rows.packed_ids[some], labels[some])
            for start in range(0, len(chosen), size)
            if len(some := chosen[start : start + size])
        ]

    where = {
        "processes": f"in {count(workers, 'process', 'processes')}",
        "ray": "in tasks of Ray",
    }.get(run.runner, "in this process, one after the other")
    parts = count(-(-len(rows) // size), "part")
    session.say(f"{kind.name} is fitted by sums over {parts} of the rows, {where}: {why}")
    adding = {
        "processes": lambda: over_processes(run.runner_workers),
        "ray": lambda: over_ray(run.address, run.runner_workers),
    }.get(run.runner, lambda: nullcontext(HERE))
    with adding() as over:
        yield Reduction(divide, over)


__all__ = ["is_reduced", "reduction"]
