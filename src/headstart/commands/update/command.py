"""``headstart update``: new items and new classes join a run."""

from __future__ import annotations

from headstart.commands.console import Printing
from headstart.commands.generate import Data, FittedRun, generated
from headstart.commands.settings import ReadOptions, RunOptions
from headstart.commands.update.options import UPDATE, UpdateConfig


@generated(UPDATE)
def update(
    run: FittedRun,
    data: Data,
    config: UpdateConfig,
    reading: ReadOptions,
    running: RunOptions,
    printing: Printing,
) -> None:
    """Let new items and new classes join a run of fit, without its old images.

    The head is fitted to old and new features together; the test split stays that of the run.
    """
    from headstart.commands.run_printing import print_run
    from headstart.commands.update.job import update as update_job

    made = update_job(data, run, config=config, run=running, reading=reading)
    print_run(made, printing, running.out or run)
