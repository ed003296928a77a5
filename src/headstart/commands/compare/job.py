"""The comparison as a job: run it, and leave a folder with figures, JSON and a report."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.commands.compare.next_commands import next_commands
from headstart.commands.compare.options import COMPARE, CompareConfig
from headstart.commands.compare.tuning import FineTuner
from headstart.commands.embedding import complete_up_to, open_call
from headstart.commands.invocation import Call, Commands
from headstart.commands.loggers import require_loggers
from headstart.commands.run_facts import (
    backbone_fingerprint,
    describe_environment,
    split_fingerprint,
)
from headstart.commands.run_logs import log_comparison
from headstart.commands.run_place import holds_folder, publishing_run
from headstart.commands.session import Session
from headstart.commands.settings import BackboneLike, BackboneSpec, ReadOptions, RunOptions
from headstart.core.cards import Card, Shown
from headstart.core.errors import ConfigError
from headstart.core.files import write_json
from headstart.core.records import to_plain
from headstart.core.settings import Fault
from headstart.core.wording import clean, count
from headstart.data import Inputs
from headstart.study import Comparison, resolve, run_study
from headstart.study.names import with_reference

FORMAT = 1


@dataclass(frozen=True, eq=False, repr=False)
class ComparisonRun(Shown):
    """The outcome of ``compare``.

    Attributes:
        comparison: figures, findings, recommendation.
        command: that made it.
        commands: that apply the recommendation.
        environment: versions and machine.
        fingerprints: content digests of backbone and data.
        notes: what was decided on the user's behalf in reading data and backbone.
        spec: how to build the backbone again.
        folder: where it was written; None if it was not.
    """

    comparison: Comparison
    command: str
    commands: tuple[str, ...]
    environment: Mapping[str, Any]
    fingerprints: Mapping[str, Any]
    notes: tuple[str, ...]
    spec: BackboneSpec
    folder: Path | None

    def card(self) -> Card:
        """Return what there is to see: the comparison, and where it is."""
        made = self.comparison.card()
        where = () if self.folder is None else (("folder", clean(self.folder)),)
        notes = (*made.notes, *self.notes)
        return dataclasses.replace(made, facts=(*made.facts, *where), notes=notes)

    def document(self) -> dict[str, Any]:
        """Return what ``comparison.json`` holds: equal for equal studies on one machine."""
        return {**self.comparison.document(), "fingerprints": dict(self.fingerprints)}

    def description(self) -> dict[str, Any]:
        """Return what ``run.json`` holds: how it was made, and all that differs between reruns."""
        return {
            "format": FORMAT,
            "kind": "comparison",
            "backbone": self.spec.plain(),
            "command": self.command,
            "commands": list(self.commands),
            "environment": to_plain(dict(self.environment)),
            "notes": list(self.notes),
            **self.comparison.timing(),
        }


@holds_folder
def compare(
    data: Any,
    backbone: BackboneLike = "auto",
    *,
    config: CompareConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> ComparisonRun:
    """Compare ways of running a frozen backbone on a data set, and say which to use, and why.

    Configurations such as ``finetune+adam`` train a copy of it in every repetition, as the
    alternative that freezing is measured against. The cache also holds the state of an unfinished
    comparison, which continues where it was interrupted when it is started again.

    Args:
        data, backbone, reading, **overrides: as for :func:`headstart.fit`.
        config: what is compared, and how.
        run: as for :func:`headstart.fit`; None: with a batch size of 32, as in most tutorials.

    Raises:
        ConfigError: unknown or contradictory configurations and settings, all together.
        DataError, BadFilesError, BackboneError, StoreError: as raised by the packages that read
            the data, run the network and keep its rows. Where writing fails, the same call
            continues from what was computed.
    """
    call = Call(COMPARE, data, *COMPARE.settle(overrides, config, run, reading, backbone))
    config, run = call.config, call.run
    require_loggers(config.loggers, run.write)
    session = Session(run)
    chosen = resolve(config.configs)
    if config.epochs and not config.head_in_epochs and all(one.recipe is None for one in chosen):
        fault = Fault("epochs", "belongs to head='mlp' and to configurations that fine-tune")
        raise ConfigError((fault,), hint="name one, such as configs='finetune+adam'")
    layers = [one.layer for one in with_reference(chosen, config.reference) if one.layer]
    call, network, dataset = open_call(session, call, lambda spec: complete_up_to(spec, layers))
    spec = call.backbone
    folder = session.folder(f"{dataset.name}-compare")
    session.say(*network.notes, f"preprocessing: {network.inputs}")
    if not isinstance(spec, BackboneSpec):
        spec = BackboneSpec.of(network)
    runs: list[ComparisonRun] = []

    def finish(comparison: Comparison) -> None:
        done = ComparisonRun(
            comparison=comparison,
            command=call.again(),
            commands=next_commands(call, spec, network.inputs, comparison),
            environment=describe_environment(),
            fingerprints={
                "backbone": backbone_fingerprint(network, run.precision),
                "train": split_fingerprint(dataset.train),
                "test": split_fingerprint(dataset.test),
            },
            notes=tuple(session.notes),
            spec=spec,
            folder=folder,
        )
        if folder is not None:
            with publishing_run(folder) as place:
                write_comparison(done, place, network.inputs)
        runs.append(done)

    run_study(
        dataset,
        network,
        config,
        extraction=run.extraction(),
        seed=run.seed,
        on_bad=run.on_bad,
        cache=session.cache,
        reporter=session.reporter,
        tuner=FineTuner(run.extraction()),
        finish=finish,
    )
    settings = {"backbone": network.name, **to_plain(dict(runs[0].comparison.settings))}
    log_comparison(runs[0].comparison, folder, settings, config.loggers, session.reporter)
    return runs[0]


def write_comparison(run: ComparisonRun, folder: Path, inputs: Inputs | None = None) -> None:
    """Write ``comparison.json``, predictions, figures, ``report.html`` and ``run.json``.

    Args:
        run: the comparison.
        folder: an existing folder.
        inputs: show the items that were predicted wrong; None: they are named only.
    """
    from headstart.commands.compare.mistakes import find_mistakes, write_predictions
    from headstart.commands.compare.page import comparison_page
    from headstart.report import save_pictures, write_page

    e, outcomes = run.comparison.evidence, run.comparison.outcomes
    write_json(folder / "comparison.json", run.document())
    write_predictions(run.comparison, folder)
    page = comparison_page(
        run.comparison,
        title=f"{e.data}: which way to run {e.backbone}",
        subtitle=f"{count(len(outcomes), 'configuration')} ×"
        f" {count(len(outcomes[0].runs), 'repetition')},"
        f" {e.n_train:,} training and {e.n_test:,} test {e.unit}",
        environment=run.environment,
        notes=run.notes,
        commands=Commands(run.command, run.commands),
        mistakes=find_mistakes(run.comparison, inputs),
    )
    save_pictures(page, folder)
    write_page(page, folder / "report.html")
    write_json(folder / "run.json", run.description())


__all__ = ["CompareConfig", "ComparisonRun", "compare", "write_comparison"]
