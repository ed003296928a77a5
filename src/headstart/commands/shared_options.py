"""The options that commands share: how a backbone is run over items, and how data are read."""

from __future__ import annotations

import copy
import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from headstart.core.records import Precision
from headstart.core.settings import Fault, check, like, option, options_of
from headstart.extraction.engines import AUTO
from headstart.extraction.settings import Extraction
from headstart.runners.table import LOCAL, Crew, describe_runners, runner_names

if TYPE_CHECKING:
    from headstart.cache import FeatureCache
    from headstart.core.progress import Reporter

DATA, RUNNING = "Data", "Running"
"""The panels of the help text."""

OnBad = Literal["raise", "skip"]


@dataclass(frozen=True)
class RunOptions(Extraction):
    """How to run a backbone over items, and where results go: what all commands share.

    Attributes:
        precision: as for :class:`~headstart.extraction.Extraction`, and ``auto`` by default.
        seed: of every random choice.
        on_bad: ``raise`` at the end of reading if items cannot be read, or ``skip`` them.
        cache: place of the feature cache: a folder, an address such as ``s3://bucket/features``,
            or a :class:`~headstart.cache.FeatureCache`. None: ``$HEADSTART_CACHE`` or the
            platform's cache folder.
        runner: who computes missing features: ``local``, or a name of
            :mod:`headstart.runners.table`. The rows and the store are the same.
        runner_workers: how many processes or actors; None: one for each of several devices, else
            for each processor.
        address: of a cluster that runs already, for ``runner="ray"``.
        actor_cpus, actor_gpus: processors and GPUs that Ray sets aside for an actor; ``0.25`` GPUs
            let four actors share one. None: one processor, and a GPU where there is one to use.
        out: the run folder. None: ``runs/TIME-NAME`` in the working directory.
        write: whether to write a run folder at all.
        reporter: where notes and progress go. None: standard error.
    """

    precision: Precision = like(Extraction, "precision", AUTO)
    seed: int = option(0, "Seed of every random choice.", at_least=0, panel=RUNNING)
    on_bad: OnBad = option(
        "raise",
        "raise: read everything, then stop and list what cannot be read. skip: continue without"
        " it.",
        flags=("--bad-files",),
        panel=DATA,
    )
    cache: str | Path | FeatureCache | None = option(
        None,
        "Folder of the feature cache, or an address such as s3://bucket/features.",
        shown="$HEADSTART_CACHE or the platform's",
        metavar="PLACE",
        panel=RUNNING,
        record=False,
    )
    out: str | Path | None = option(
        None, "Run folder.", shown="runs/TIME-NAME", metavar="DIR", flags=("-o",), record=False
    )
    runner: str = option(
        LOCAL,
        lambda: f"Where missing features are computed. {describe_runners()}",
        choices=runner_names,
        panel=RUNNING,
        record=False,
    )
    runner_workers: int | None = option(
        None,
        "Processes or actors of the runner.",
        shown="one per processor",
        at_least=1,
        panel=RUNNING,
        record=False,
    )
    address: str | None = option(
        None,
        "Address of a running cluster, for the runner.",
        shown="a cluster on this machine",
        metavar="ADDRESS",
        panel=RUNNING,
        record=False,
    )
    actor_cpus: float | None = option(
        None,
        "Processors that Ray reserves per actor.",
        shown="1",
        above=0,
        panel=RUNNING,
        record=False,
    )
    actor_gpus: float | None = option(
        None,
        "GPUs that Ray reserves per actor; 0.25: four share one.",
        shown="1 where there is one to use",
        at_least=0,
        panel=RUNNING,
        record=False,
    )
    write: bool = option(True, "Whether to write a run folder.", cli=False, record=False)
    reporter: Reporter | None = option(None, "Where notes go.", cli=False, record=False)

    def faults(self) -> list[str]:
        """Refuse empty names, and modes of fine-tuning in the place of a folder."""
        empty = [
            Fault(name, "is empty, and would mean the working directory; omit it, or give '.'")
            for name in ("cache", "out")
            if isinstance(getattr(self, name), str) and not getattr(self, name).strip()
        ]
        if empty:
            return [*empty]
        if self.runner == LOCAL and self.runner_workers is not None:
            return [
                "runner_workers is the number of workers of a runner, and runner='local' has"
                " only one: give runner='processes', or omit it"
            ]
        for name in ("address", "actor_cpus", "actor_gpus"):
            if getattr(self, name) is not None and self.runner != "ray":
                return [f"{name} is for a Ray cluster: also give runner='ray'"]
        if self.cache in ("auto", "on", "off"):
            return [
                f"cache='{self.cache}' would be a folder of that name: the mode of fine-tuning is"
                f" stored='{self.cache}', and a folder can be written cache='./{self.cache}'"
            ]
        return []

    def extraction(self) -> Extraction:
        """Return the part that an extractor takes."""
        return Extraction(
            **{each.name: getattr(self, each.name) for each in options_of(Extraction)}
        )

    def open_cache(self) -> FeatureCache:
        """Open the feature cache."""
        from headstart.cache import FeatureCache

        own = isinstance(self.cache, FeatureCache)
        cache: FeatureCache = self.cache if own else FeatureCache(self.cache)  # type: ignore[assignment,arg-type]
        if self.runner != LOCAL:
            from headstart.runners.help import crew_of

            cache = copy.copy(cache) if own else cache
            cache.crew = crew_of(
                Crew(
                    self.runner,
                    self.runner_workers,
                    self.address,
                    self.actor_cpus,
                    self.actor_gpus,
                )
            )
        return cache

    def open_reporter(self) -> Reporter:
        """Return where notes and progress go."""
        from headstart.core.progress import console_reporter

        return self.reporter or console_reporter()


@dataclass(frozen=True)
class ReadOptions:
    """How to read the data; see :func:`headstart.load_data`.

    Attributes:
        image_column, label_column, text_column, audio_column: columns of a table; None: found where
            unambiguous.
        columns: columns of a table, with commas between them, that join the features of every item:
            numbers are standardised, categories one-hot (:mod:`headstart.data.table_columns`).
        group_column: the column of a table that says which items belong together and are never
            parted: a patient, a site, a film; None: none does.
        group_pattern: a regular expression that says the same of names of files.
        image_folder: where the paths of a table start; None: in the table's own folder.
        image_suffix: the ending of image files that a table names without it.
        encoding: of a CSV file; None: UTF-8, or what its first bytes say.
        train, test: the folder, table, key or split that trains or tests, where names do not say.
        splits: ``auto``: names such as train and test say what is a split; ``none``: every folder
            is a class, and no column divides a table.
        value_range: the values of black and white, where arrays or files do not say so.
        task: what labels mean: one class, several labels, or numbers; ``auto``: what they look
            like, told with the reason.
        test_fraction: share set aside where the source has no test split.
    """

    image_column: str | None = option(
        None, "Column of a table with images or their paths.", metavar="NAME", panel=DATA
    )
    label_column: str | None = option(
        None, "Column of a table with labels.", metavar="NAME", panel=DATA
    )
    text_column: str | None = option(
        None, "Column of a table with texts.", metavar="NAME", panel=DATA
    )
    audio_column: str | None = option(
        None, "Column of a table with sounds or their paths.", metavar="NAME", panel=DATA
    )
    columns: str | None = option(
        None,
        "Columns of a table to join to the features, such as age,site: numbers are standardised,"
        " categories one-hot.",
        metavar="NAME,NAME",
        panel=DATA,
    )
    group_column: str | None = option(
        None,
        "Column of a table that says which items belong together: patient, site, video.",
        metavar="NAME",
        panel=DATA,
    )
    group_pattern: str | None = option(
        None,
        "Regular expression whose first group says the same from file names: '(patient[0-9]+)_'.",
        metavar="REGEX",
        panel=DATA,
    )
    image_folder: str | None = option(
        None,
        "Folder that the paths in a table are relative to.",
        shown="the table's own",
        metavar="DIR",
        panel=DATA,
    )
    image_suffix: str | None = option(
        None,
        "Extension of image files that a table names without one, such as .jpg.",
        metavar="SUFFIX",
        panel=DATA,
    )
    encoding: str | None = option(
        None, "Encoding of a CSV file, such as cp1252.", shown="UTF-8", metavar="NAME", panel=DATA
    )
    train: str | None = option(
        None,
        "Folder, table or split to train on, if its name does not say so.",
        metavar="NAME",
        panel=DATA,
    )
    test: str | None = option(
        None,
        "Folder, table or split to test on, if its name does not say so.",
        metavar="NAME",
        panel=DATA,
    )
    splits: Literal["auto", "none"] = option(
        "auto",
        "auto: folders with names such as train and test are splits. none: every folder is a"
        " class.",
        panel=DATA,
    )
    value_range: tuple[float, float] | None = option(
        None,
        "Values of black and white, if arrays or files do not say: 0,4095 for 12 bits.",
        shown="by type",
        metavar="BLACK,WHITE",
        panel=DATA,
    )
    task: Literal["auto", "classification", "multi-label", "regression"] = option(
        "auto",
        "What labels mean: one class, several labels, or numbers. auto: what they look like.",
        panel=DATA,
    )
    test_fraction: float = option(
        0.2,
        "Share set aside for testing if the data has no test split.",
        above=0,
        below=1,
        panel=DATA,
    )

    def __post_init__(self) -> None:
        check(self)

    def where(self) -> dict[str, Any]:
        """Return what all loaders of data take, by the name of their parameter."""
        names = ("image_column", "label_column", "text_column", "audio_column", "columns")
        more = ("image_folder", "image_suffix", "encoding", "value_range")
        return {name: getattr(self, name) for name in (*names, *more)}

    def grouping(self) -> dict[str, Any]:
        """Return what loaders of labelled data take besides: what items belong to."""
        return {"group_column": self.group_column, "group_pattern": self.group_pattern}

    def elsewhere(self) -> ReadOptions:
        """Return how to read other data with the same run.

        Where one table keeps its images, and what its items belong to, is no property of another;
        values of black and white are those of the run anyway.
        """
        return dataclasses.replace(
            self,
            image_folder=None,
            image_suffix=None,
            encoding=None,
            value_range=None,
            columns=None,
            group_column=None,
            group_pattern=None,
        )

    def faults(self) -> list[str]:
        """Refuse values of black and white that are none, and labels among the features."""
        found, limits = [], self.value_range
        if limits is not None and not (len(limits) == 2 and limits[0] < limits[1]):
            found.append(f"value_range must be two numbers, the smaller first, not {limits!r}")
        labels = {name.strip() for name in (self.label_column or "").split(",")} - {""}
        for name in (self.columns or "").split(","):
            if name.strip() in labels:
                found.append(
                    f"'{name.strip()}' holds the labels, which cannot be joined to the features"
                    f" (columns='{self.columns}')"
                )
        return found


__all__ = ["DATA", "RUNNING", "OnBad", "ReadOptions", "RunOptions"]
