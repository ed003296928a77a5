"""The worst mistakes of a run in Python: what the gallery of its report shows."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headstart.commands.around import Around, mistake_cases
from headstart.commands.open_collection import open_collection
from headstart.commands.run import Run
from headstart.commands.saved_run import SavedRun
from headstart.commands.scoring import outputs_of
from headstart.commands.session import Session
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions
from headstart.core.errors import DataError
from headstart.core.progress import SilentReporter
from headstart.core.wording import clean, count
from headstart.report.page import Block, Case, Cases, Gallery, Page, Section, render_page


@dataclass(frozen=True)
class Mistakes:
    """Mistakes, the worst first, each an item beside the training items that explain it.

    It is a sequence of :class:`~headstart.report.page.Case`, prints as lines, and shows itself as a
    gallery in a notebook.

    Attributes:
        cases: the mistakes.
        of: how many there are in all.
        tested: of how many items.
    """

    cases: tuple[Case, ...]
    of: int
    tested: int

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, at: int) -> Case:
        return self.cases[at]

    def __iter__(self) -> Iterator[Case]:
        return iter(self.cases)

    def __repr__(self) -> str:
        lines = [f"{self._counted()}, the worst first:"]
        for case in self.cases:
            facts = ", ".join(f"{what} {clean(value)}" for what, value in case.example.facts)
            lines.append(f"  {clean(case.example.name)}: {facts}")
        return "\n".join(lines)

    def _counted(self) -> str:
        return f"{count(self.of, 'mistake')} of {count(self.tested, 'test item')}"

    def page(self) -> Page:
        """Return the gallery as a page, for :func:`headstart.report.write_page`."""
        explained = tuple(case for case in self.cases if case.groups)
        others = tuple(case.example for case in self.cases if not case.groups)
        blocks: list[Block] = [
            *([Cases(explained)] if explained else []),
            *([Gallery(others)] if others else []),
        ]
        return Page(
            self._counted(), sections=(Section("The worst first", tuple(blocks or ["None."])),)
        )

    def _repr_html_(self) -> str:
        """Return the page in a frame of its own, so that its style stays inside."""
        from markupsafe import escape

        height = min(900, 300 + 280 * len(self.cases))  # of a title, of a case in a wide cell
        text = escape(render_page(self.page()))
        return (
            f'<iframe sandbox="" srcdoc="{text}" width="100%" height="{height}"'
            ' style="border: 0"></iframe>'
        )


def show_mistakes(
    run: Run | SavedRun | Path | str, most: int = 24, *, data: Any = None, cache: Any = None
) -> Mistakes:
    """Return the worst mistakes of a run on its test split, as its report shows them.

    Args:
        run: a run, or its folder.
        most: so many; the first twelve have beside them the training items of both classes that
            they are nearest to.
        data: where the data of a run lie, where they have moved.
        cache: the feature cache that has its features, where that is not the usual one.

    Raises:
        DataError, BackboneError: the items of the run cannot be opened.
    """
    if isinstance(run, Run) and run.around is not None:
        return _shown(run.around, most)
    session = Session(RunOptions(cache=cache, reporter=SilentReporter()))
    among = open_collection(
        session,
        run,
        ReadOptions(),
        BackboneSpec(),
        data=data,
        trust_code=isinstance(run, SavedRun) and run.trust_code,
    )
    assert among.head is not None
    if "test" not in among.splits:
        raise DataError("the run has no test items")
    test, rows = among.splits["test"], among.features["test"]
    around = Around(
        among.head,
        test,
        outputs_of(among.head, among.joined("test")),
        among.backbone.inputs,
        rows,
        among.splits.get("train"),
        among.features.get("train"),
    )
    return _shown(around, most)


def _shown(around: Around, most: int) -> Mistakes:
    wrong = int((np.nan_to_num(around.judged().wrong) > 0).sum())
    return Mistakes(mistake_cases(around, most), wrong, len(around.test))


__all__ = ["Mistakes", "show_mistakes"]
