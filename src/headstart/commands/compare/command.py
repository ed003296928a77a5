"""``headstart compare``: which way of running the backbone is right for this data, and why."""

from __future__ import annotations

from headstart.commands.compare.options import COMPARE, CompareConfig
from headstart.commands.console import Printing, print_json, print_lines, print_quietly, stdout
from headstart.commands.generate import Data, as_flags, generated
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions
from headstart.core.settings import options_of


@generated(COMPARE)
def compare(
    data: Data,
    config: CompareConfig,
    backbone: BackboneSpec,
    reading: ReadOptions,
    run: RunOptions,
    printing: Printing,
) -> None:
    """Compare ways of running a frozen backbone on your data, with repetitions and causes.

    finetune+sgd and finetune+adam train a copy of it in every repetition, to see what freezing
    costs; they take by far the longest.

    Writes a run folder with comparison.json, figures and report.html. An interrupted comparison
    goes on where it stopped when the same command is given again.
    """
    from headstart.commands.compare.job import compare as compare_job
    from headstart.commands.compare.tables import terminal

    if isinstance(config.configs, str) and config.configs.strip() == "list":
        _list_words()
        return
    done = compare_job(data, backbone, config=config, run=run, reading=reading)
    if printing.json:
        print_json({**done.document(), **done.description(), "folder": str(done.folder)})
        return
    if printing.quiet:
        print_quietly(done.folder, run.out)
        return
    console = stdout()
    flags = {each.name: each for each in options_of(CompareConfig)}
    console.print(terminal(done.comparison, lambda text: as_flags(text, flags)))
    following = [f"next:   {command}" for command in done.commands]
    print_lines(console, (f"\nreport: {done.folder}/report.html", *following))


def _list_words() -> None:
    from headstart.study import DEFAULT, TERMS

    console = stdout()
    for word, (_, about) in TERMS.items():
        console.print(f"{word:18}{about}")
    console.print(f"{'blend(0.5)':18}half of the way from running to re-estimated statistics")
    console.print(f"{'finetune:NAME':18}backbone trained by a recipe of headstart finetune, or a")
    console.print(f"{'':18}file: finetune:lp-ft, finetune:mine.toml")
    console.print(f"{'layer=NAME':18}another cut; likewise pooling=, batch=, size=, scale=, mean=,")
    console.print(f"{'':18}std=, crop=, channels= (three numbers with slashes: mean=0.4/0.5/0.6)")
    console.print(f"\ndefault: {','.join(DEFAULT)}")
