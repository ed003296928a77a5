"""The record of a run of ``fit``, ``sweep`` or ``finetune``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from headstart.backbones import Backbone
from headstart.commands.around import (
    Around,
)
from headstart.commands.invocation import Call, Commands
from headstart.commands.kept_rows import KeptRows
from headstart.commands.run import Run
from headstart.commands.run_facts import describe_environment
from headstart.commands.scoring import AnyEvaluation
from headstart.commands.session import Session
from headstart.commands.settings import BackboneSpec
from headstart.core.records import (
    Baseline,
    CacheUse,
    Curve,
    Reference,
    to_plain,
)
from headstart.core.settings import recorded
from headstart.data import Split
from headstart.data.table_columns import Encodings
from headstart.heads import Head
from headstart.heads.held_out import Calibration
from headstart.heads.outliers import Outliers

if TYPE_CHECKING:
    from torch import Tensor


class TestedItems(Protocol):
    """The items of a run, and what the cache had of them."""

    @property
    def train(self) -> Split:
        """Those that trained."""

    @property
    def test(self) -> Split:
        """Those that were tested."""

    @property
    def use(self) -> CacheUse:
        """Rows found and computed."""

    @property
    def images_per_second(self) -> float | None:
        """The rate of extraction; None if nothing was computed."""


def new_run(
    session: Session,
    items: TestedItems,
    call: Call,
    *,
    head: Head,
    evaluation: AnyEvaluation,
    configuration: Mapping[str, Any],
    fingerprints: Mapping[str, Any],
    backbone: Backbone,
    folder: Path | None,
    settings: Any = None,
    spec: BackboneSpec | Backbone | None = None,
    commands: tuple[str, ...] = (),
    baselines: tuple[Baseline | Reference, ...] = (),
    curves: tuple[Curve, ...] = (),
    rows: KeptRows | None = None,
    columns: Encodings = (),
    calibration: Calibration | None = None,
    uncalibrated: str = "",
    outliers: Outliers | None = None,
    around: Around | None = None,
    tuned: Mapping[str, Tensor] | None = None,
) -> Run:
    """Put together the record of a run.

    Args:
        session: its cache, clock and notes.
        items: the splits.
        call: the call that made it.
        configuration: what else the record says of how the run was made: ``data``, ``chosen``.
        settings: the command's own, where they are not those of the call.
        spec: what the backbone was built from; None: that of the call.
        rows: what the run keeps of its items, so that others can join it.
        columns: of the table that join the features.
        calibration, uncalibrated: what sets of a coverage are made of, or why there is nothing.
        outliers: what tells items that are unlike the training items; None: not asked for.
        around: the tested items with their features and those that trained, for the report.
        tuned: tensors of the network that is run in the place of the one that was loaded.
        commands: what may follow; the one for new data is added.
        head, evaluation, fingerprints, backbone, folder, baselines, curves: see
            :class:`~headstart.commands.run.Run`.
    """
    plain: dict[str, Any] = {}
    for group in (call.config if settings is None else settings, call.run, call.reading):
        plain |= to_plain(recorded(group))
    plain["precision"] = session.run.precision  # settled, where the call left it open
    plain |= _source(call.data)
    spec = call.backbone if spec is None else spec
    return Run(
        head=head,
        classes=items.test.classes,
        evaluation=evaluation,
        baselines=baselines,
        curves=curves,
        configuration={**plain, **configuration},
        environment=describe_environment(),
        fingerprints=fingerprints,
        cache=items.use,
        seconds=session.clock.seconds(),
        images_per_second=items.images_per_second,
        n_train=len(items.train),
        n_test=len(items.test),
        notes=tuple(session.notes),
        spec=spec if isinstance(spec, BackboneSpec) else BackboneSpec.of(backbone),
        backbone=backbone,
        folder=folder,
        commands=Commands(
            call.again(), commands, later_commands(call, folder, backbone.inputs.unit)
        ),
        trained_on={"train": items.train.ids},
        rows=rows,
        columns=columns,
        calibration=calibration,
        uncalibrated=uncalibrated,
        outliers=outliers,
        around=around,
        tuned=tuned or {},
        extraction={}
        if session.throughput is None
        else session.throughput.describe(backbone.inputs.unit),
    )


def _source(data: Any) -> dict[str, str]:
    """Return where the data of a run lie, so that it can show its items later."""
    if not isinstance(data, str | Path):
        return {}
    path = Path(data).expanduser()
    return {"source": str(path.absolute() if path.exists() else data)}


def later_commands(call: Call, folder: Path | None, unit: str) -> tuple[tuple[str, str], ...]:
    """Return how the run of a call is used on other data.

    Args:
        call: that made the run.
        folder: of the run.
        unit: what several items are called ("images").
    """
    if folder is None:
        return ()
    table = Path("predictions.csv")
    return (
        (f"new {unit}", call.with_run("predict", folder, f"NEW_{unit.upper()}", table=table)),
        ("other labelled data", call.with_run("evaluate", folder, "OTHER_DATA")),
    )


__all__ = ["TestedItems", "later_commands", "new_run"]
