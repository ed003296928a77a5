"""``headstart fit``: from data to a tested classifier."""

from __future__ import annotations

from headstart.commands.console import Printing
from headstart.commands.fit.options import FIT, FitConfig
from headstart.commands.generate import Data, generated
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions


@generated(FIT)
def fit(
    data: Data,
    config: FitConfig,
    backbone: BackboneSpec,
    reading: ReadOptions,
    run: RunOptions,
    printing: Printing,
) -> None:
    """Embed the items once, train a head on the features, test it once.

    Writes a run folder with the head, metrics.json, run.json, figures and report.html.
    """
    from headstart.commands.fit.job import fit as fit_job
    from headstart.commands.run_printing import print_run

    made = fit_job(data, backbone, config=config, run=run, reading=reading)
    print_run(made, printing, run.out)
