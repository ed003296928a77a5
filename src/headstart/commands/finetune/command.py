"""``headstart finetune``: thaw in stages, never computing a frozen prefix twice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.commands.console import Printing
from headstart.commands.finetune.options import FINETUNE, FinetuneConfig
from headstart.commands.generate import Data, generated
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions
from headstart.core.settings import option

if TYPE_CHECKING:
    from headstart.finetuning.plan import Plan


@dataclass(frozen=True)
class Planning:
    """Whether to train at all."""

    dry_run: bool = option(False, "Print the plan and stop.", panel="Running")


@generated(FINETUNE)
def finetune(
    data: Data,
    config: FinetuneConfig,
    backbone: BackboneSpec,
    reading: ReadOptions,
    run: RunOptions,
    planning: Planning,
    printing: Printing,
) -> None:
    """Fine-tune a backbone in stages: plan, train, keep the best epoch, test once.

    Writes a run folder as fit does, which predict and evaluate open. Killed at
    any moment, it resumes with the same --out after the last finished epoch.
    """
    from headstart.commands.console import print_json
    from headstart.commands.finetune.job import finetune as finetune_job
    from headstart.commands.finetune.job import plan_finetune
    from headstart.commands.run_printing import print_run
    from headstart.core.records import to_plain

    if planning.dry_run:
        plan = plan_finetune(data, backbone, config=config, run=run, reading=reading)
        if printing.json:
            print_json({**to_plain(plan), "seconds": plan.seconds})
        else:
            _print_plan(plan)
        return
    made = finetune_job(
        data,
        backbone,
        config=config,
        run=run,
        reading=reading,
        show_plan=None if printing.json or printing.quiet else _print_plan,
    )
    print_run(made, printing, run.out)


def _print_plan(plan: Plan) -> None:
    from headstart.commands.console import stdout
    from headstart.commands.finetune.plan_table import plan_table

    stdout().print(plan_table(plan))
