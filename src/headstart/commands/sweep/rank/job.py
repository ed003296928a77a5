"""Which backbone for this data: each is probed inside the training split, and kept."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.backbones import AUTO
from headstart.commands.embedding import fewer_labels
from headstart.commands.invocation import Call, Commands
from headstart.commands.run_place import holds_folder, publishing_run
from headstart.commands.session import Session
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions
from headstart.commands.sweep.options import SWEEP, SweepConfig, refuse_for_task
from headstart.commands.sweep.rank.named import (
    Named,
    check_options,
    named_backbones,
    read_options,
)
from headstart.commands.sweep.rank.page import plain_ranking, write_ranking
from headstart.commands.sweep.rank.probe import Probe, probe_backbone, settings_for
from headstart.commands.sweep.rank.ranking import Ranking, rank_probes
from headstart.core.errors import BadFilesError, ConfigError, DataError, HeadstartError
from headstart.core.settings import recorded
from headstart.core.wording import count
from headstart.data import Dataset
from headstart.data.source import column_names
from headstart.data.table_columns import fitted_columns


@dataclass(frozen=True, eq=False)
class RankResult:
    """The outcome.

    Attributes:
        ranking: the table and the recommendation.
        folder: where it was written; None if it was not.
        commands: what may come next.
    """

    ranking: Ranking
    folder: Path | None
    commands: Commands


@holds_folder
def rank(
    data: Any,
    backbones: Sequence[str],
    *,
    options: Mapping[str, Mapping[str, Any]] | None = None,
    config: SweepConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    backbone: BackboneSpec | None = None,
    **overrides: Any,
) -> RankResult:
    """Probe backbones on the training split, and recommend the cheapest of the best.

    Each embeds the training items that are not in the cache, and is scored by nested
    cross-validation with the head ``auto``. The result of each backbone is cached: an
    interrupted call continues after the last one, and a repeated call computes nothing. A backbone
    that cannot be built or run becomes a row that says why. The test split is not touched.

    Args:
        data: as for :func:`headstart.fit`.
        backbones: names; ``*`` stands for anything, as in ``timm/resnet*``.
        options: settings of single backbones by name, fields of
            :class:`~headstart.BackboneSpec`; they add to those of the file
            ``config.backbone_options``.
        config: of its settings ``heads``, ``folds``, the first of ``seeds``,
            ``backbone_options``, ``most`` and ``labels_per_class`` count.
        backbone: settings that all of them share, such as ``size``.
        run, reading, **overrides: as for :func:`headstart.fit`.

    Raises:
        ConfigError: settings that cannot be, options for a backbone that is not named.
        DataError: the data cannot be read.
        BadFilesError: items cannot be read; pass ``on_bad="skip"`` to skip them.
    """
    given = {**overrides, "backbones": tuple(backbones)}
    call = Call(SWEEP, data, *SWEEP.settle(given, config, run, reading, backbone))
    config, run, reading = call.config, call.run, call.reading
    base = call.backbone
    assert isinstance(base, BackboneSpec)
    _refuse(config, base)
    single = {**({} if config.backbone_options is None else read_options(config.backbone_options))}
    check_options(options or {})
    single |= {name: dict(values) for name, values in (options or {}).items()}
    named, notes = named_backbones(config.backbones, base, single, config.most)
    session = Session(run)
    dataset = session.open_dataset(data, reading, seed=config.seeds[0])
    refuse_for_task(config, dataset.task)
    if reading.columns is not None:
        session.say(*fitted_columns(dataset.train, column_names(reading.columns))[1])
    dataset = fewer_labels(dataset, config.labels_per_class, session, config.seeds[0])
    folder = session.folder(f"{dataset.name}-backbones")
    session.say(*notes)
    tried = _tried(named, dataset, config, session, reading.columns)
    found = rank_probes(tried, session.notes)
    session.say(_work(tried))
    specs = {one.name: one.spec for one in named}
    commands = Commands(call.again(folder), _next(call, found, specs))
    if folder is not None:
        configuration = {"data": dataset.name, **recorded(config), "folds": config.folds}
        with publishing_run(folder) as place:
            write_ranking(place, found, configuration, commands)
    return RankResult(found, folder, commands)


def _refuse(config: SweepConfig, base: BackboneSpec) -> None:
    faults = []
    if config.layers or config.poolings:
        faults.append("layers and poolings apply to one network, and several are compared")
    if config.loggers:
        faults.append("loggers record a sweep over heads, and backbones are compared")
    if config.threshold != "auto":
        faults.append("threshold applies to one head, and several backbones are compared")
    if config.grid is not None or config.standardise != (True,):
        faults.append(
            "grid and standardise apply to a sweep over heads, and backbones are compared"
        )
    if len(config.seeds) > 1:
        faults.append("seeds must be a single seed: backbones are compared on one split into folds")
    if base.source != AUTO:
        faults.append(
            f"backbone='{base.source}' is given as well as backbones: include it in backbones"
        )
    if not config.backbones:
        faults.append("backbones must name at least one backbone")
    if faults:
        cut = config.layers or config.poolings
        where = "give the layer of a backbone in the file of backbone_options"
        raise ConfigError(tuple(faults), hint=where if cut else None)


def _tried(
    named: Sequence[Named],
    dataset: Dataset,
    config: SweepConfig,
    session: Session,
    columns: str | None,
) -> list[tuple[str, Probe | str]]:
    train = dataset.train
    settings = settings_for(train, config, columns)
    tried: list[tuple[str, Probe | str]] = []
    for number, one in enumerate(named, start=1):
        session.reporter.note(f"{number} of {len(named)}: {one.name}")
        if one.spec is None:
            tried.append((one.name, one.why))
            continue
        try:
            tried.append((one.name, probe_backbone(one.spec, dataset.train, settings, session)))
        except (BadFilesError, DataError):
            raise  # of the data: it would be the same for all
        except Exception as error:  # of a network's own code, say: it does not end the others
            why = _first_line(error)
            session.reporter.note(f"{one.name} is skipped: {why}")
            tried.append((one.name, why))
    return tried


def _first_line(error: BaseException) -> str:
    if isinstance(error, MemoryError) or "out of memory" in str(error).lower():
        return "out of memory: a smaller batch_size may help"
    lines = str(error).strip().splitlines() or [""]
    foreseen = isinstance(error, HeadstartError | RuntimeError | ImportError | OSError)
    return lines[0] if foreseen and lines[0] else f"{type(error).__name__}: {lines[0]}".rstrip(": ")


def _work(tried: Sequence[tuple[str, Probe | str]]) -> str:
    probes = [one for _, one in tried if not isinstance(one, str)]
    rows, fitted = sum(one.computed for one in probes), sum(not one.found for one in probes)
    if not fitted:
        return (
            f"all {count(len(probes), 'probe')} were in the cache: no forward pass was"
            " needed, no head was trained"
        )
    return f"{count(fitted, 'backbone')} probed, {count(rows, 'row')} embedded"


def _next(call: Call, found: Ranking, specs: Mapping[str, BackboneSpec | None]) -> tuple[str, ...]:
    spec = None if found.recommended is None else specs[found.recommended]
    if spec is None:
        return ()
    return (call.then("fit", backbone=dataclasses.replace(spec), seed=call.config.seeds[0]),)


def plain(result: RankResult) -> dict[str, Any]:
    """Return a result as plain values, for ``--json``."""
    folder = None if result.folder is None else str(result.folder)
    return {**plain_ranking(result.ranking), "folder": folder, "next": list(result.commands.next)}


__all__ = ["RankResult", "plain", "rank"]
