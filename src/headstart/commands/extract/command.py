"""``headstart extract``: features of a data set into the cache, by one machine or many."""

from __future__ import annotations

from headstart.commands.console import Printing, print_json, print_lines, stdout
from headstart.commands.extract.options import EXTRACT, ExtractConfig
from headstart.commands.generate import Items, generated
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions


@generated(EXTRACT)
def extract(
    data: Items,
    config: ExtractConfig,
    backbone: BackboneSpec,
    reading: ReadOptions,
    run: RunOptions,
    printing: Printing,
) -> None:
    """Embed the items of all splits and keep the features in the cache; fit, sweep and finetune
    then find them.

    With --runner several processes, the members of a job array or a cluster share the work.
    """
    from headstart.commands.extract.job import extract_features

    made = extract_features(data, backbone, config=config, run=run, reading=reading)
    if printing.json:
        print_json(made.describe())
    elif not printing.quiet:
        print_lines(stdout(), made.lines())
