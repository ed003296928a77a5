"""``headstart examine``: label budget, leaks, doubtful labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.commands.console import (
    Printing,
    plain_table,
    print_json,
    print_lines,
    print_quietly,
    stdout,
)
from headstart.commands.examine.options import EXAMINE, ExamineConfig
from headstart.commands.generate import Data, generated
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions
from headstart.core.wording import count, verb

if TYPE_CHECKING:
    from headstart.commands.examine.examination import Examination


@generated(EXAMINE)
def examine(
    data: Data,
    config: ExamineConfig,
    backbone: BackboneSpec,
    reading: ReadOptions,
    run: RunOptions,
    printing: Printing,
) -> None:
    """Ask the features: would more labels help, do splits leak, which labels look wrong?

    Writes a folder with report.html (the learning curve, pictures of near copies and of doubtful
    labels) and examination.json.
    """
    from headstart.commands.examine.job import examine as examine_job

    found = examine_job(data, backbone, config=config, run=run, reading=reading)
    if printing.json:
        print_json({**found.plain(), "next": list(found.commands.next)})
    elif printing.quiet:
        print_quietly(found.folder, run.out)
    else:
        _print(found, config.most)


def _print(found: Examination, most: int) -> None:
    from headstart.commands.examine.examination import curve_rows, gain_line

    console, what = stdout(), found.doubted
    (first, second), rows = curve_rows(found.budget)
    titles = (first, f"{second}, held out of the training split")
    console.print(plain_table(titles, rows, right=titles[:1]))
    if line := gain_line(found.budget):
        console.print(line)
    copies, doubts = found.near_copies, found.doubts
    console.print(
        f"\n{len(copies):,} of {count(found.n_test, 'test item')}"
        f" {verb(len(copies), 'is a near copy', 'are near copies')}"
    )
    if copies:
        pairs = [(each.test, each.train, f"{each.similarity:.3f}") for each in copies[:most]]
        console.print(plain_table(("test item", "training item", "cosine"), pairs))
    console.print(
        f"\n{len(doubts):,} of {count(found.n_train, f'training {what}')}"
        if found.task == "classification"
        else f"\n{count(len(doubts), what)} of {count(found.n_train, 'training item')}"
        f" {verb(len(doubts), 'looks', 'look')} doubtful"
    )
    if doubts:
        marked = [(each.item, each.label, each.suggested, each.sure) for each in doubts[:most]]
        sure = "error" if what == "value" else "probability"
        console.print(plain_table(("item", what, "looks like", sure), marked))
    print_lines(console, (f"\nreport: {found.folder}/report.html", *found.commands.lines()))
