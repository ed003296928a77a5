"""From the words of a recipe to the parts of a network: groups, rates and freeze policies.

Whatever does not fit is collected over all stages and reported together, before anything runs.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headstart.backbones.groups import BlockGroup, param_groups
from headstart.core.errors import ConfigError, FreezeError
from headstart.core.names import covers, is_glob, matches
from headstart.core.wording import nearest, quoted
from headstart.finetuning.network import BACKBONE, HEAD, Classifier, dead_modules, network_groups
from headstart.finetuning.recipe import Recipe, Stage
from headstart.freezing import FreezePlan, FreezePolicy, plan_freeze

_LAST = re.compile(r"last:(\d+)")


@dataclass(frozen=True)
class GroupRate:
    """One group of parameters with what an optimizer does to it.

    Attributes:
        name: the block group, or ``head``.
        parameters: names of those that train.
        lr: the effective rate at the top of the schedule.
        weight_decay: likewise.
    """

    name: str
    parameters: tuple[str, ...]
    lr: float
    weight_decay: float


@dataclass(frozen=True, eq=False)
class Target:
    """A stage, found in a network.

    Attributes:
        stage: the stage.
        groups: names of the groups that train, ``norms`` for scales and shifts.
        policies: what :func:`headstart.freeze` is given.
        freeze: what it will do. A ``reestimated`` stage is planned with running statistics, since
            the measurement is made when the stage begins.
        rates: what the optimizer is given.
    """

    stage: Stage
    groups: tuple[str, ...]
    policies: Mapping[str, FreezePolicy]
    freeze: FreezePlan
    rates: tuple[GroupRate, ...]


def resolve(
    network: Classifier, recipe: Recipe, *, surgical: str | None = None
) -> tuple[Target, ...]:
    """Find every stage of a recipe in a network.

    Args:
        network: the network; it is left as it is.
        recipe: the recipe.
        surgical: the group that the word ``surgical`` stands for, as measured.

    Raises:
        ConfigError: all faults of all stages: names that match nothing (with the nearest ones),
            groups that cannot thaw alone, rates for what does not train, stages that train nothing.
    """
    faults = recipe.faults()
    groups = network_groups(network)
    found: list[Target] = []
    for stage in recipe.stages:
        if stage.faults():  # in ``faults`` already; of the rest only the names can be looked at
            wrong: list[str] = []
            _choose(network, groups, stage, surgical, wrong)
            faults += [f"stage '{stage.name}': {fault}" for fault in wrong]
            continue
        for single in expand(stage, groups):
            wrong = []
            target = _resolve_stage(network, groups, single, surgical, wrong)
            faults += [f"stage '{single.name}': {fault}" for fault in wrong]
            if target is not None and not wrong:
                found.append(target)
    if faults:
        raise ConfigError(tuple(dict.fromkeys(faults)))
    return tuple(found)


def expand(stage: Stage, groups: Sequence[BlockGroup]) -> list[Stage]:
    """Return the stages that a stage stands for: one a block group for ``gradual``."""
    if stage.train != ("gradual",):
        return [stage]
    count = len(groups) - 1
    return [
        dataclasses.replace(stage, name=f"{stage.name} {n}", train=(f"last:{n}",))
        for n in range(1, count + 1)
    ]


def _resolve_stage(
    network: Classifier,
    groups: Sequence[BlockGroup],
    stage: Stage,
    surgical: str | None,
    faults: list[str],
) -> Target | None:
    chosen, modules, norms = _choose(network, groups, stage, surgical, faults)
    if faults:
        return None
    policies = _policies(network, groups, stage, chosen, modules, norms, faults)
    if faults:
        return None
    planned = {
        part: dataclasses.replace(p, norm="running") if p.norm == "reestimated" else p
        for part, p in policies.items()
    }
    try:
        plan = plan_freeze(network, planned)
    except FreezeError as error:
        faults.append(str(error))
        return None
    if not plan.trainable:
        faults.append(f"train = {list(stage.train)} matches parts without any parameter to train")
        return None
    names = [group.name for group in groups if group.name in chosen]
    rates = _rates(network, groups, stage, set(plan.trainable), faults)
    labels = (*names, *modules, *(("norms",) if norms else ()))
    return Target(stage, labels, policies, plan, rates)


def _choose(
    network: Classifier,
    groups: Sequence[BlockGroup],
    stage: Stage,
    surgical: str | None,
    faults: list[str],
) -> tuple[set[str], list[str], bool]:
    """Return names of whole groups, names of single modules, and whether norms train."""
    blocks = [group.name for group in groups if group.name != HEAD]
    known = {group.name for group in groups}
    parts = [name for name, _ in network.named_modules() if name]
    chosen: set[str] = set()
    modules: list[str] = []
    norms = False
    for word in stage.train if stage.train != ("gradual",) else ():
        last = _LAST.fullmatch(word)
        if word == "all":
            chosen |= known
        elif word == "norms":
            norms = True
        elif word == "surgical":
            chosen.add(surgical or blocks[-1])
        elif last is not None:
            count = int(last[1])
            if not 1 <= count <= len(blocks):
                faults.append(
                    f"'{word}' is out of range: the backbone has {len(blocks)} block groups"
                )
            else:
                chosen |= {HEAD, *blocks[-count:]}
        else:
            fitting = {name for name in known if matches(word, name)}
            inside = [n for n in parts if matches(word, n) or matches(f"{BACKBONE}.{word}", n)]
            chosen |= fitting
            live = [n for n in inside if n in network.live_modules()]
            if not fitting and live:
                modules += [n for n in live if not any(n.startswith(m + ".") for m in live)]
            elif not fitting and inside:
                faults.append(
                    f"'{word}' in train names what lies behind the layer that features are taken"
                    f" from, and does not run; the classifier that trains is '{HEAD}'"
                )
            elif not fitting:
                faults.append(_unmatched(word, known, parts))
    return chosen, modules, norms


def _unmatched(word: str, known: set[str], parts: Sequence[str]) -> str:
    short = [name.removeprefix(f"{BACKBONE}.") for name in parts]
    close = nearest(word, [*known, "all", "norms", "surgical", "gradual", "last:1", *short])
    kind = "pattern" if is_glob(word) else "name"
    offer = (
        f" (the nearest are {quoted(close)})" if close else f"; there are {quoted(sorted(known))}"
    )
    return f"the {kind} '{word}' in train matches no group and no module{offer}"


def _policies(
    network: Classifier,
    groups: Sequence[BlockGroup],
    stage: Stage,
    chosen: set[str],
    modules: Sequence[str],
    norms: bool,
    faults: list[str],
) -> dict[str, FreezePolicy]:
    """Build the mapping for ``freeze``: the whole, then the parts that differ from it."""
    frozen = _frozen(stage)
    thawed = FreezePolicy(
        "trainable", stage.norm, stage.norm == "batch", "on" if stage.dropout else "off"
    )
    policies = {"": frozen, HEAD: thawed if HEAD in chosen else frozen}
    if norms:
        policies[BACKBONE] = dataclasses.replace(
            frozen, norm=stage.norm, norm_updates=stage.norm == "batch", affine="trainable"
        )
    blocks = [group for group in groups if group.name != HEAD]
    if all(group.name in chosen for group in blocks):
        policies[BACKBONE] = thawed
    else:
        for group in blocks:
            if group.name not in chosen:
                continue
            loose = [n for n in group.parameters if not any(covers(m, n) for m in group.modules)]
            if loose:
                faults.append(
                    f"the group '{group.name}' holds {quoted(loose, 3)}, which belong to a module"
                    " that stays frozen in part; train 'all', or leave the group out"
                )
            policies |= dict.fromkeys(group.modules, thawed)
    policies |= dict.fromkeys(modules, thawed)
    if policies.get(BACKBONE, frozen) != FreezePolicy():
        # What lies behind the layer does not run: it has nothing to learn or to be measured on.
        policies |= dict.fromkeys(dead_modules(network), FreezePolicy())
    # Dropout stands between backbone and head and belongs to the head.
    policies["dropout"] = policies[HEAD]
    return policies


def _frozen(stage: Stage) -> FreezePolicy:
    if stage.frozen == "requires-grad-only":
        return FreezePolicy("frozen", "batch", True, "on")
    return FreezePolicy(norm="reestimated" if stage.norm == "reestimated" else "running")


def _rates(
    network: Classifier,
    groups: Sequence[BlockGroup],
    stage: Stage,
    training: set[str],
    faults: list[str],
) -> tuple[GroupRate, ...]:
    """Return the groups that train with their rates; complain of rates for others."""
    names = [group.name for group in groups]
    live = {g.name for g in groups if any(n in training for n in g.parameters)}
    own: dict[str, float] = {}
    for pattern, rate in stage.rates.items():
        fitting = [name for name in names if matches(pattern, name)]
        if not fitting:
            close = nearest(pattern, names) or tuple(names)
            faults.append(
                f"rates has '{pattern}', which matches no group (the nearest are {quoted(close)})"
            )
        elif not live.intersection(fitting):
            faults.append(f"rates has '{pattern}', which does not train in this stage")
        own |= dict.fromkeys(fitting, rate)
    spared = _undecayed(network)
    found = []
    for distance, group in enumerate(reversed(groups)):
        rate = own.get(group.name, stage.lr * stage.decay**distance)
        mine = [name for name in group.parameters if name in training]
        for decay, kept in (
            (stage.weight_decay, [n for n in mine if n not in spared]),
            (0.0, [n for n in mine if n in spared]),
        ):
            if kept:
                found.append(GroupRate(group.name, tuple(kept), rate, decay))
    return tuple(reversed(found))


def _undecayed(network: Classifier) -> set[str]:
    """Return the parameters that get no weight decay: norms, biases, what the model names."""
    names = {id(parameter): name for name, parameter in network.named_parameters()}
    before = {name: p.requires_grad for name, p in network.named_parameters()}
    for parameter in network.parameters():
        parameter.requires_grad_(True)  # param_groups leaves frozen ones out
    try:
        listed: list[dict[str, Any]] = list(param_groups(network, 1.0, 1.0, 1.0))
    finally:
        for name, parameter in network.named_parameters():
            parameter.requires_grad_(before[name])
    own = getattr(network.backbone, "no_weight_decay", None)
    patterns = [f"{BACKBONE}.{name}" for name in (own() if callable(own) else ())]
    return {names[id(p)] for g in listed if g["weight_decay"] == 0 for p in g["params"]} | {
        name for name in names.values() if any(covers(pattern, name) for pattern in patterns)
    }


__all__ = ["GroupRate", "Target", "expand", "resolve"]
