"""The fine-tuning job: a recipe of stages, planned, trained from stored rows, tested once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from headstart.backbones import Backbone
from headstart.cache import FeatureCache
from headstart.commands.backbone_spec import BackboneSpec
from headstart.commands.finetune.loggers import check_loggers
from headstart.commands.finetune.settings import FinetuneConfig, settle
from headstart.commands.finetune.steps import Work
from headstart.commands.run_folder import Run, prepare_folder
from headstart.commands.sources import DataOptions
from headstart.core.errors import ConfigError
from headstart.core.progress import Reporter
from headstart.finetuning import Recipe, load_recipe
from headstart.finetuning.devices import Devices
from headstart.finetuning.launch import check_devices, launch
from headstart.finetuning.plan import Plan
from headstart.modules.digests import named_tensors


def finetune(
    data: Any,
    backbone: str | Path | BackboneSpec | Backbone = "headstart/glyphs",
    recipe: str | Path | Recipe = "lp-ft",
    *,
    config: FinetuneConfig | None = None,
    out: Path | str | None = None,
    write: bool = True,
    cache: Path | str | FeatureCache | None = None,
    data_options: DataOptions | None = None,
    reporter: Reporter | None = None,
    show_plan: Callable[[Plan], None] | None = None,
    **settings: Any,
) -> Run:
    """Fine-tune a backbone by a recipe, and evaluate it once on the test split.

    A module of your own is trained in place. The best epoch is chosen on a part of the training
    split. With a run folder the state is kept after every epoch: the same call with the same
    folder goes on where a kill ended it, to the identical result.

    With several devices every device has a process of its own, started for the duration of the
    call. Arguments and result are pickled, so that a script that makes the call needs the usual
    guard ``if __name__ == "__main__":``. Under ``torchrun`` its processes share the work, and each
    returns the run.

    Args:
        data: a :class:`~headstart.data.Dataset`, or anything :func:`headstart.load_data` takes.
        backbone: a name, a :class:`~headstart.backbones.Backbone`, or how to build one.
        recipe: the name of a preset, a ``.toml`` file, or a recipe.
        config: all settings at once.
        out: the run folder; None makes ``runs/TIME-NAME``.
        write: whether to write a run folder at all.
        cache: folder of the feature cache, where the stored rows lie, too.
        data_options: how to read the data, where its columns or its test split are not obvious.
        reporter: where notes and progress go; None: standard error.
        show_plan: called with the plan before training begins.
        **settings: single fields of :class:`FinetuneConfig`, such as ``stored="off"``,
            ``devices=2`` or ``loggers=("tensorboard",)``.

    Returns:
        The run, for ``predict`` and ``evaluate``; ``run.training`` holds plan, epochs and proofs.

    Raises:
        ConfigError: faults of the recipe, all together; or an unfinished run of another plan.
        DataError, BadFilesError, BackboneError, FreezeError, StoreError: see their rooms.
    """
    chosen = settle(config, settings)
    if chosen.loggers and not write:
        raise ConfigError(("loggers write into the run folder, and write is False",))
    check_loggers(chosen.loggers)
    run = launch(
        chosen.devices,
        chosen.extraction.resolve_device(),
        _run,
        *(data, backbone, load_recipe(recipe), chosen, cache, data_options, out, write),
        *(reporter, show_plan),
    )
    return _into(backbone, run) if isinstance(backbone, Backbone) else run


def _run(
    devices: Devices,
    data: Any,
    backbone: str | Path | BackboneSpec | Backbone,
    recipe: Recipe,
    config: FinetuneConfig,
    cache: Path | str | FeatureCache | None,
    data_options: DataOptions | None,
    out: Path | str | None,
    write: bool,
    reporter: Reporter | None,
    show_plan: Callable[[Plan], None] | None,
) -> Run:
    """Do the whole job, on one of the devices that share it."""
    work = Work(data, backbone, recipe, config, cache, data_options, reporter, devices)
    folder = None
    if write:
        name = f"{work.dataset.name}-{work.recipe.name}"
        folder = devices.once(lambda: prepare_folder(out, name))
    work.prepare(folder)
    if show_plan is not None and devices.main:
        show_plan(work.prepared.plan)
    return work.train(folder)


def _into(backbone: Backbone, run: Run) -> Run:
    """Write what another process has trained into the caller's module."""
    if run.backbone.module is not backbone.module:
        named = dict(named_tensors(backbone.module))
        with torch.no_grad():
            for name, tensor in run.tuned.items():
                named[name].copy_(tensor)
        run = dataclasses.replace(run, backbone=backbone)
    return run


def plan_finetune(
    data: Any,
    backbone: str | Path | BackboneSpec | Backbone = "headstart/glyphs",
    recipe: str | Path | Recipe = "lp-ft",
    *,
    config: FinetuneConfig | None = None,
    out: Path | str | None = None,
    cache: Path | str | FeatureCache | None = None,
    data_options: DataOptions | None = None,
    reporter: Reporter | None = None,
    **settings: Any,
) -> Plan:
    """Return the plan of :func:`finetune` without training.

    The data is read and a few items are measured. A recipe that starts from a probe has it
    trained, since ``surgical`` depends on it; its features stay in the cache.

    Args:
        out: write ``plan.json`` into this folder.
        data, backbone, recipe, config, cache, data_options, reporter, **settings: as for
            :func:`finetune`.
    """
    chosen = settle(config, settings)
    check_devices(chosen.devices, chosen.extraction.resolve_device())
    work = Work(data, backbone, recipe, chosen, cache, data_options, reporter)
    work.prepare(None if out is None else prepare_folder(out, "plan"))
    return work.prepared.plan


__all__ = ["FinetuneConfig", "finetune", "plan_finetune"]
