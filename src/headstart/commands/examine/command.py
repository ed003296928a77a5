"""``headstart examine``: label budget, leaks, doubtful labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.commands.console import print_json, stdout
from headstart.commands.examine.options import EXAMINE, ExamineConfig
from headstart.commands.generate import Data, Printing, generated
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions

if TYPE_CHECKING:
    from headstart.commands.examine.job import Examination


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
        print_json(found.plain())
    else:
        _print(found, config.most)


def _print(found: Examination, most: int) -> None:
    from headstart.commands.examine.page import format_gain
    from headstart.report import format_score

    console, budget = stdout(), found.budget
    console.print("accuracy by labels a class (held out of the training split)")
    for shots, point in zip(budget.shots, budget.scores, strict=True):
        console.print(f"  {shots:>6,}  {format_score(point)}")
    if budget.gain is not None:
        console.print(f"twice the labels would bring about {format_gain(budget.gain)}")
    console.print(f"\n{len(found.near_copies):,} of {found.n_test:,} test items are near copies")
    for copy in found.near_copies[:most]:
        console.print(f"  {copy.similarity:.3f}  {copy.test}  {copy.train}")
    console.print(f"\n{len(found.doubts):,} of {found.n_train:,} training labels look doubtful")
    for doubt in found.doubts[:most]:
        console.print(
            f"  {doubt.item}: labelled {doubt.label}, looks like {doubt.suggested} "
            f"({doubt.probability:.0%})"
        )
    console.print(f"\nreport: {found.folder}/report.html")
