"""The comparison as a job: run it, and leave a folder with figures, JSON and a report."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headstart.backbones import Backbone
from headstart.cache import FeatureCache
from headstart.commands.backbone_spec import BackboneSpec
from headstart.commands.compare.next_commands import Asked, next_commands
from headstart.commands.compare.tuning import FineTuner
from headstart.commands.embedding import complete_up_to
from headstart.commands.environment import describe_environment
from headstart.commands.fingerprints import backbone_fingerprint, split_fingerprint
from headstart.commands.run_folder import prepare_folder
from headstart.commands.sources import DataOptions, open_dataset
from headstart.core.errors import ConfigError
from headstart.core.files import write_json
from headstart.core.progress import Reporter, console_reporter
from headstart.core.records import to_plain
from headstart.core.settings import settle
from headstart.data.reading import OnBad
from headstart.extraction import Extraction
from headstart.study import CompareConfig, Comparison, resolve, run_study
from headstart.study.configurations import with_reference
from headstart.study.study import BATCH_SIZE

FORMAT = 1


@dataclass(frozen=True, eq=False)
class ComparisonRun:
    """The outcome of ``compare``.

    Attributes:
        comparison: figures, findings, recommendation.
        commands: that apply the recommendation and repeat the study.
        environment: versions and machine.
        fingerprints: content digests of backbone and data.
        notes: what was decided on the user's behalf in reading data and backbone.
        spec: how to build the backbone again.
        folder: where it was written; None if it was not.
    """

    comparison: Comparison
    commands: tuple[str, ...]
    environment: Mapping[str, Any]
    fingerprints: Mapping[str, Any]
    notes: tuple[str, ...]
    spec: BackboneSpec
    folder: Path | None

    def document(self) -> dict[str, Any]:
        """Return what ``comparison.json`` holds: equal for equal studies on one machine."""
        return {**self.comparison.document(), "fingerprints": dict(self.fingerprints)}

    def description(self) -> dict[str, Any]:
        """Return what ``run.json`` holds: how it was made, and all that differs between reruns."""
        return {
            "format": FORMAT,
            "kind": "comparison",
            "backbone": to_plain(self.spec),
            "commands": list(self.commands),
            "environment": to_plain(dict(self.environment)),
            "notes": list(self.notes),
            **self.comparison.timing(),
        }


def compare(
    data: Any,
    backbone: str | Path | BackboneSpec | Backbone = "headstart/glyphs",
    *,
    config: CompareConfig | None = None,
    extraction: Extraction | None = None,
    seed: int = 0,
    on_bad: OnBad = "raise",
    out: Path | str | None = None,
    write: bool = True,
    cache: Path | str | FeatureCache | None = None,
    data_options: DataOptions | None = None,
    reporter: Reporter | None = None,
    **overrides: Any,
) -> ComparisonRun:
    """Compare ways of running a frozen backbone on a data set, and say which to use, and why.

    Configurations such as ``finetune+adam`` train a copy of it in every repetition; that is what
    freezing is to be measured against.

    Args:
        data: a :class:`~headstart.data.Dataset`, or anything :func:`headstart.load_data` takes.
        backbone: a name, a :class:`~headstart.backbones.Backbone`, or how to build one.
        config: all settings of the comparison.
        extraction: precision, device, and the batch size of the loaders. None: batches of 32.
        seed: of every random choice.
        on_bad: ``raise`` or ``skip`` items that cannot be read.
        out: the run folder; None makes ``runs/TIME-NAME-compare``.
        write: whether to write a run folder at all.
        cache: folder of the feature cache; it also holds the state of an unfinished comparison,
            which goes on where it was interrupted when it is started again.
        data_options: how to read the data.
        reporter: where the plan, notes and progress go; None: standard error.
        **overrides: single settings, such as ``configs="eval,no_grad"`` or ``repeats=3``.

    Raises:
        ConfigError: unknown or contradictory configurations and settings, all together.
        DataError, BadFilesError, BackboneError, StoreError: as raised by the packages that read
            the data, run the network and keep its rows. Where writing fails, the same call goes
            on from what was computed.
    """
    settings, running = settle(
        "compare",
        overrides,
        config or CompareConfig(),
        extraction or Extraction(batch_size=BATCH_SIZE),
    )
    reporter = reporter or console_reporter()
    store = cache if isinstance(cache, FeatureCache) else FeatureCache(cache)
    chosen = resolve(settings.configs)
    if (
        settings.epochs
        and not settings.head_in_epochs
        and all(one.recipe is None for one in chosen)
    ):
        raise ConfigError(
            ("epochs belongs to head='mlp' and to configurations that fine-tune",),
            hint="name one, such as configs='finetune+adam'",
        )
    layers = [one.layer for one in with_reference(chosen, settings.reference) if one.layer]
    spec = BackboneSpec(str(backbone)) if isinstance(backbone, str | Path) else backbone
    network = complete_up_to(spec, layers)
    options = data_options or DataOptions()
    dataset, said = open_dataset(data, options, seed, store, reporter)
    folder = prepare_folder(out, f"{dataset.name}-compare") if write else None
    notes = (*said, *network.notes, f"preprocessing: {network.inputs}")
    for note in notes:
        reporter.note(note)
    spec = backbone if isinstance(backbone, BackboneSpec) else BackboneSpec.of(network)
    precision = running.precision
    asked = Asked(data, options, spec, network.inputs, seed, on_bad, precision, settings.epochs)
    runs: list[ComparisonRun] = []

    def finish(comparison: Comparison) -> None:
        run = ComparisonRun(
            comparison=comparison,
            commands=next_commands(asked, comparison),
            environment=describe_environment(),
            fingerprints={
                "backbone": backbone_fingerprint(network, precision),
                "train": split_fingerprint(dataset.train),
                "test": split_fingerprint(dataset.test),
            },
            notes=notes,
            spec=spec,
            folder=folder,
        )
        if folder is not None:
            write_comparison(run, folder)
        runs.append(run)

    run_study(
        dataset,
        network,
        settings,
        extraction=running,
        seed=seed,
        on_bad=on_bad,
        cache=store,
        reporter=reporter,
        tuner=FineTuner(running),
        finish=finish,
    )
    return runs[0]


def write_comparison(run: ComparisonRun, folder: Path) -> None:
    """Write ``comparison.json``, figures, ``report.html`` and ``run.json``."""
    from headstart.commands.compare.page import comparison_page, save_figures
    from headstart.report import write_page

    e, outcomes = run.comparison.evidence, run.comparison.outcomes
    write_json(folder / "comparison.json", run.document())
    save_figures(run.comparison, folder)
    page = comparison_page(
        run.comparison,
        title=f"{e.data}: which way to run {e.backbone}",
        subtitle=f"{len(outcomes)} configurations × {len(outcomes[0].runs)} repetitions,"
        f" {e.n_train:,} training and {e.n_test:,} test images",
        environment=run.environment,
        notes=run.notes,
        commands=run.commands,
    )
    write_page(page, folder / "report.html")
    write_json(folder / "run.json", run.description())


__all__ = ["ComparisonRun", "compare", "write_comparison"]
