"""``headstart advise``: is unfreezing likely to pay?"""

from __future__ import annotations

from headstart.commands.advise.options import ADVISE, AdviseConfig
from headstart.commands.console import Printing, plain_table, print_json, print_lines, stdout
from headstart.commands.generate import Data, generated
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions


@generated(ADVISE)
def advise(
    data: Data,
    config: AdviseConfig,
    backbone: BackboneSpec,
    reading: ReadOptions,
    run: RunOptions,
    printing: Printing,
) -> None:
    """Say whether unfreezing is likely to pay, with the evidence.

    Measures inside the training split only: a short trial of the last block, the probe's learning
    curve, the drift of batch-norm statistics, gradients relative to weights.
    """
    from headstart.commands.advise.job import advise as advise_job
    from headstart.core.records import to_plain

    advice = advise_job(data, backbone, config=config, run=run, reading=reading)
    if printing.json:
        print_json(to_plain(advice))
        return
    console = stdout()
    if printing.quiet:
        print_lines(console, (advice.verdict, *advice.commands))
        return
    console.print(advice.verdict, style="bold")
    rows = [(each.name, each.value, each.meaning, each.leaning) for each in advice.indicators]
    console.print(plain_table(("indicator", "measured", "usually means", "leans to"), rows))
    print_lines(console, (f"next:   {command}" for command in advice.commands))
