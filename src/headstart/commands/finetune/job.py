"""The fine-tuning job: a recipe of stages, planned, trained from stored rows, tested once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from headstart.backbones import Backbone
from headstart.commands.finetune.options import FINETUNE, FinetuneConfig
from headstart.commands.finetune.steps import Job
from headstart.commands.invocation import Call
from headstart.commands.loggers import require_loggers
from headstart.commands.run import Run
from headstart.commands.run_place import RUN, holds_folder
from headstart.commands.settings import BackboneLike, ReadOptions, RunOptions
from headstart.core.errors import ConfigError
from headstart.core.files import write_json
from headstart.core.records import to_plain
from headstart.finetuning import Recipe
from headstart.finetuning.devices import ALONE, Devices
from headstart.finetuning.launch import check_devices, launch
from headstart.finetuning.plan import Plan
from headstart.modules.digests import named_tensors


def finetune(
    data: Any,
    backbone: BackboneLike = "auto",
    recipe: str | Path | Recipe | None = None,
    *,
    config: FinetuneConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    show_plan: Callable[[Plan], None] | None = None,
    **overrides: Any,
) -> Run:
    """Fine-tune a backbone by a recipe, and evaluate it once on the test split.

    A module of your own is trained in place. The best epoch is chosen on a part of the training
    split. With a run folder the state is saved after every epoch: the same call with the same
    folder resumes where a kill ended it, to the identical result.

    With several devices every device has a process of its own, started for the duration of the
    call. Arguments and result are pickled, so that a script that makes the call needs the usual
    guard ``if __name__ == "__main__":``. Under ``torchrun`` its processes share the work, and each
    returns the run.

    Args:
        data: a :class:`~headstart.data.Dataset`, or anything :func:`headstart.load_data` takes.
        backbone: a name, a module, a :class:`~headstart.backbones.Backbone`, or how to build one.
        recipe: the name of a recipe, a ``.toml`` file, or a recipe; None: the config's, which is
            ``lp-ft``.
        config: the recipe, and how to train it.
        run: how to run the backbone, and where results go; ``batch_size`` is that of forward
            passes outside training.
        reading: how to read the data, where its columns or its splits are not obvious.
        show_plan: called with the plan before training begins.
        **overrides: single fields of :class:`FinetuneConfig`, :class:`RunOptions`,
            :class:`ReadOptions` or :class:`BackboneSpec`, such as ``stored="off"``, ``devices=2``,
            ``epochs=3`` or ``cache="s3://bucket/features"``.

    Returns:
        The run, for ``predict`` and ``evaluate``; ``run.training`` holds stages, epochs and proofs.

    Raises:
        ConfigError: faults of the recipe, all together; or an unfinished run of another plan.
        DataError, BadFilesError, BackboneError, FreezeError, StoreError: see their packages.
    """
    call = _call(data, backbone, recipe, config, run, reading, overrides)
    config, run, spec = call.config, call.run, call.backbone
    require_loggers(config.loggers, run.write)
    made = launch(config.devices, run.resolve_device(), _run, call, show_plan)
    return _into(spec, made) if isinstance(spec, Backbone) else made


@holds_folder
def plan_finetune(
    data: Any,
    backbone: BackboneLike = "auto",
    recipe: str | Path | Recipe | None = None,
    *,
    config: FinetuneConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> Plan:
    """Return the plan of :func:`finetune` without training.

    The data is read and a few items are measured. A recipe that starts from a probe has it
    trained, since ``surgical`` depends on it; its features stay in the cache.

    Args:
        data, backbone, recipe, config, run, reading, **overrides: as for :func:`finetune`. With
            ``out`` the plan is written into that folder, as ``plan.json``.
    """
    call = _call(data, backbone, recipe, config, run, reading, overrides)
    check_devices(call.config.devices, call.run.resolve_device())
    job = Job(ALONE, call)
    folder = None if call.run.out is None else job.session.folder("plan")
    if folder is not None and (folder / RUN).exists():
        raise ConfigError(
            (f"'{folder}' holds a finished run of another plan",),
            hint="choose another folder with out=DIR",
        )
    job.prepare(folder)
    plan = job.prepared.plan
    if folder is not None:
        write_json(folder / "plan.json", to_plain(plan))
    return plan


def _call(
    data: Any,
    backbone: BackboneLike,
    recipe: str | Path | Recipe | None,
    config: FinetuneConfig | None,
    run: RunOptions | None,
    reading: ReadOptions | None,
    overrides: dict[str, Any],
) -> Call:
    """Return a call with its settings; its recipe has been looked at."""
    given = overrides if recipe is None else {**overrides, "recipe": recipe}
    call = Call(FINETUNE, data, *FINETUNE.settle(given, config, run, reading, backbone))
    call.config.with_recipe()
    return call


@holds_folder
def _run(devices: Devices, call: Call, show_plan: Callable[[Plan], None] | None) -> Run:
    """Do the whole job, on one of the devices that share it."""
    job = Job(devices, call)
    folder = devices.once(lambda: job.session.folder(f"{job.dataset.name}-{job.recipe.name}"))
    job.prepare(folder)
    if job.checkpoint is not None and devices.main:
        job.checkpoint.describe(to_plain(job.prepared.plan))
    if show_plan is not None and devices.main:
        show_plan(job.prepared.plan)
    return job.train(folder)


def _into(backbone: Backbone, run: Run) -> Run:
    """Write what another process has trained into the caller's module."""
    if run.backbone.module is backbone.module:
        return run
    named = dict(named_tensors(backbone.module))
    with torch.no_grad():
        for name, tensor in run.tuned.items():
            named[name].copy_(tensor)
    return dataclasses.replace(run, backbone=backbone)


__all__ = ["FinetuneConfig", "finetune", "plan_finetune"]
