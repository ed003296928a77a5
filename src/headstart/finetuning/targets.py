"""What trains in this network: the stages of a recipe as groups, rates and freeze policies.

Whatever does not fit is collected over all stages and reported together, before anything runs.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from headstart.backbones.groups import BlockGroup, param_groups
from headstart.core.errors import ConfigError, FreezeError
from headstart.core.patterns import covers, is_glob, matches
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
    """A stage, resolved in a network.

    Attributes:
        stage: the stage.
        groups: names of the groups that train, ``norms`` for scales and shifts.
        policies: what :func:`headstart.freeze` takes.
        freeze: what it will do. A ``reestimated`` stage is planned with running statistics, since
            they are measured when the stage begins.
        rates: what the optimizer takes.
        trainable: names of the parameters that train, each once; the freeze plan has tied ones
            under all their names.
    """

    stage: Stage
    groups: tuple[str, ...]
    policies: Mapping[str, FreezePolicy]
    freeze: FreezePlan
    rates: tuple[GroupRate, ...]
    trainable: tuple[str, ...]


def resolve(
    network: Classifier, recipe: Recipe, *, surgical: str | None = None
) -> tuple[Target, ...]:
    """Find every stage of a recipe in a network, which is left unchanged.

    Args:
        network: the network.
        recipe: the recipe.
        surgical: the group that ``surgical`` means, as measured.

    Raises:
        ConfigError: all faults of all stages: names that match nothing (with the nearest ones),
            groups that cannot thaw alone, rates for what does not train, stages that train nothing.
    """
    resolver = _Resolver(network, surgical)
    faults = recipe.faults()
    found: list[Target] = []
    for stage in recipe.stages:
        if stage.faults():  # in ``faults`` already; of the rest only the names can be looked at
            wrong: list[str] = []
            resolver.choose(stage, wrong)
            faults += [f"stage '{stage.name}': {fault}" for fault in wrong]
            continue
        for single in expand(stage, resolver.groups):
            wrong = []
            target = resolver.target(single, wrong)
            faults += [f"stage '{single.name}': {fault}" for fault in wrong]
            if target is not None and not wrong:
                found.append(target)
    if faults:
        raise ConfigError(tuple(dict.fromkeys(faults)))
    return tuple(found)


def expand(stage: Stage, groups: Sequence[BlockGroup]) -> list[Stage]:
    """Return the stages that a stage expands to: one per block group for ``gradual``."""
    if stage.train != ("gradual",):
        return [stage]
    return [
        dataclasses.replace(stage, name=f"{stage.name} {n}", train=(f"last:{n}",))
        for n in range(1, len(groups))
    ]


@dataclass
class _Chosen:
    """What a stage trains: names of whole groups, names of single modules, and norms."""

    groups: set[str] = field(default_factory=set)
    modules: list[str] = field(default_factory=list)
    norms: bool = False


class _Resolver:
    """Resolves stages in one network; faults are appended to the list that a method takes."""

    def __init__(self, network: Classifier, surgical: str | None) -> None:
        self.network = network
        self.groups = network_groups(network)
        self.blocks = list(self.groups[:-1])
        self.names = [group.name for group in self.groups]
        self.surgical = surgical or self.blocks[-1].name
        self.live = network.live_modules()
        self.modules = {name: part for name, part in network.named_modules() if name}
        self.parts = list(self.modules)

    def target(self, stage: Stage, faults: list[str]) -> Target | None:
        """Resolve a stage; None if it has faults."""
        chosen = self.choose(stage, faults)
        policies = {} if faults else self._policies(stage, chosen, faults)
        if faults:
            return None
        planned = {
            part: dataclasses.replace(p, norm="running") if p.norm == "reestimated" else p
            for part, p in policies.items()
        }
        try:
            plan = plan_freeze(self.network, planned)
        except FreezeError as error:
            faults.append(str(error))
            return None
        if not plan.trainable:
            faults.append(
                f"train = {list(stage.train)} matches only parts without trainable parameters"
            )
            return None
        rates = self._rates(stage, set(plan.trainable), faults)
        whole = [name for name in self.names if name in chosen.groups]
        labels = (*whole, *chosen.modules, *(("norms",) if chosen.norms else ()))
        once = dict(self.network.named_parameters())
        trainable = tuple(name for name in plan.trainable if name in once)
        return Target(stage, labels, policies, plan, rates, trainable)

    def choose(self, stage: Stage, faults: list[str]) -> _Chosen:
        """Return what the words of ``train`` select."""
        chosen = _Chosen()
        for word in stage.train if stage.train != ("gradual",) else ():
            last = _LAST.fullmatch(str(word))
            if word == "all":
                chosen.groups.update(self.names)
            elif word == "norms":
                chosen.norms = True
            elif word == "surgical":
                chosen.groups.add(self.surgical)
            elif last is None:
                self._by_name(str(word), chosen, faults)
            elif 1 <= int(last[1]) <= len(self.blocks):
                blocks = self.blocks[-int(last[1]) :]
                chosen.groups.update({HEAD, *(group.name for group in blocks)})
            else:
                faults.append(
                    f"'{word}' is out of range: the backbone has {len(self.blocks)} block groups"
                )
        self._add_tied(chosen)
        return chosen

    def _add_tied(self, chosen: _Chosen) -> None:
        """Add the groups that hold a tensor of a chosen one under another name.

        One tensor cannot be frozen in one place and train in another.
        """
        while True:
            training = {t for name in chosen.groups for t in self.tensors.get(name, ())}
            more = {g for g, held in self.tensors.items() if held & training} - chosen.groups
            if not more:
                return
            chosen.groups.update(more)

    @cached_property
    def tensors(self) -> dict[str, set[int]]:
        """The parameters that each group of the backbone holds, under any name."""
        own = dict(self.network.named_parameters())
        return {
            group.name: {id(own[name]) for name in group.parameters}
            | {id(p) for name in group.modules for p in self.modules[name].parameters()}
            | {
                id(p)
                for n in self._owners(group)
                for p in self.modules[n].parameters(recurse=False)
            }
            for group in self.blocks
        }

    def _by_name(self, word: str, chosen: _Chosen, faults: list[str]) -> None:
        """Add the groups that a name or glob selects, or else the modules."""
        groups = [name for name in self.names if matches(word, name)]
        if groups:
            chosen.groups.update(groups)
            return
        inside = [n for n in self.parts if matches(word, n) or matches(f"{BACKBONE}.{word}", n)]
        live = [n for n in inside if n in self.live]
        if live:
            chosen.modules += [n for n in live if not any(n.startswith(m + ".") for m in live)]
        elif inside:
            faults.append(
                f"'{word}' in train names a part after the layer that features are taken from,"
                f" which does not run; the classifier that trains is '{HEAD}'"
            )
        else:
            faults.append(self._unmatched(word))

    def _unmatched(self, word: str) -> str:
        words = ("all", "norms", "surgical", "gradual", "last:1")
        short = [name.removeprefix(f"{BACKBONE}.") for name in self.parts]
        close = nearest(word, [*self.names, *words, *short])
        kind = "pattern" if is_glob(word) else "name"
        offer = (
            f" (the nearest are {quoted(close)})"
            if close
            else f"; there are {quoted(sorted(self.names))}"
        )
        return f"the {kind} '{word}' in train matches no group and no module{offer}"

    def _policies(
        self, stage: Stage, chosen: _Chosen, faults: list[str]
    ) -> dict[str, FreezePolicy]:
        """Return the mapping for ``freeze``: the whole, then the parts that differ from it."""
        frozen = FreezePolicy(norm="reestimated" if stage.norm == "reestimated" else "running")
        if stage.frozen == "requires-grad-only":
            frozen = FreezePolicy("frozen", "batch", True, "on")
        moving = stage.norm == "batch"
        thawed = FreezePolicy("trainable", stage.norm, moving, "on" if stage.dropout else "off")
        policies = {"": frozen, HEAD: thawed if HEAD in chosen.groups else frozen}
        if chosen.norms:
            policies[BACKBONE] = dataclasses.replace(
                frozen, norm=stage.norm, norm_updates=moving, affine="trainable"
            )
        thawing = [group for group in self.blocks if group.name in chosen.groups]
        if len(thawing) == len(self.blocks):
            policies[BACKBONE] = thawed
        else:
            for group in thawing:
                self._check_alone(group, thawing, faults)
                policies |= dict.fromkeys(group.modules, thawed)
            for group in thawing:
                for owner in self._owners(group):
                    self._thaw_alone(owner, thawed, policies)
        policies |= dict.fromkeys(chosen.modules, thawed)
        if policies.get(BACKBONE, frozen) != FreezePolicy():
            # What lies behind the layer does not run: there is nothing to learn or to measure.
            policies |= dict.fromkeys(dead_modules(self.network), FreezePolicy())
        # Dropout is between backbone and head and belongs to the head.
        policies["dropout"] = policies[HEAD]
        self._share(policies)
        return policies

    def _share(self, policies: dict[str, FreezePolicy]) -> None:
        """Give what has several names, a module or a tied tensor, the policy of where it trains."""
        governing: dict[str, FreezePolicy] = {}
        names: dict[int, list[str]] = {}
        for name, module in self.network.named_modules(remove_duplicate=False):
            governing[name] = policies.get(name) or governing[name.rpartition(".")[0]]
            names.setdefault(id(module), []).append(name)
        for aliases in names.values():
            found = {governing[name] for name in aliases}
            if len(found) > 1:
                chosen = next((policy for policy in found if policy.trains), governing[aliases[0]])
                policies |= dict.fromkeys(aliases, chosen)
                governing |= dict.fromkeys(aliases, chosen)
        training = {
            id(parameter): governing[name]
            for name, module in self.modules.items()
            for parameter in module.parameters(recurse=False)
            if governing[name].parameters == "trainable"
        }
        for name, module in self.modules.items():
            own = [id(parameter) for parameter in module.parameters(recurse=False)]
            if own and governing[name].parameters == "frozen" and training.keys() >= set(own):
                policies[name] = training[own[0]]

    def _loose(self, group: BlockGroup) -> list[str]:
        """Return parameters of a group whose module is not in it as a whole: tokens, positions."""
        return [n for n in group.parameters if not any(covers(m, n) for m in group.modules)]

    def _owners(self, group: BlockGroup) -> list[str]:
        return list(dict.fromkeys(name.rpartition(".")[0] for name in self._loose(group)))

    def _thaw_alone(
        self, owner: str, thawed: FreezePolicy, policies: dict[str, FreezePolicy]
    ) -> None:
        """Thaw the parameters of a module itself; the modules in it stay as they are."""
        above = [name for name in policies if not name or covers(name, owner)]
        kept = policies[max(above, key=len)]
        if kept == thawed:
            return
        prefix = f"{owner}."
        for name in self.parts:
            if name.startswith(prefix) and "." not in name[len(prefix) :]:
                policies.setdefault(name, kept)
        policies[owner] = thawed

    def _check_alone(
        self, group: BlockGroup, thawing: Sequence[BlockGroup], faults: list[str]
    ) -> None:
        """Refuse a group that shares the parameters of one module with a group that is frozen."""
        training = {name for each in thawing for name in each.parameters}
        beside = {
            f"{owner}.{key}"
            for owner in self._owners(group)
            for key, _ in self.modules[owner].named_parameters(recurse=False)
        }
        others = {name for each in self.blocks for name in each.parameters} - training
        if beside & others:
            faults.append(
                f"the group '{group.name}' holds {quoted(self._loose(group), 3)}, which belong to"
                f" a module that stays frozen in part ({quoted(sorted(beside & others), 3)} of"
                " another group); train 'all', or leave the group out"
            )

    def _rates(self, stage: Stage, training: set[str], faults: list[str]) -> tuple[GroupRate, ...]:
        """Return the groups that train with their rates; complain of rates for others."""
        live = {g.name for g in self.groups if any(n in training for n in g.parameters)}
        own: dict[str, float] = {}
        for pattern, rate in stage.rates.items():
            fitting = [name for name in self.names if matches(pattern, name)]
            if not fitting:
                close = quoted(nearest(pattern, self.names) or tuple(self.names))
                faults.append(
                    f"rates has '{pattern}', which matches no group (the nearest are {close})"
                )
            elif not live.intersection(fitting):
                faults.append(f"rates has '{pattern}', which does not train in this stage")
            own |= dict.fromkeys(fitting, rate)
        found = []
        for distance, group in enumerate(reversed(self.groups)):
            rate = own.get(group.name, stage.lr * stage.decay**distance)
            mine = [name for name in group.parameters if name in training]
            for decay, kept in (
                (stage.weight_decay, [n for n in mine if n not in self._undecayed]),
                (0.0, [n for n in mine if n in self._undecayed]),
            ):
                if kept:
                    found.append(GroupRate(group.name, tuple(kept), rate, decay))
        return tuple(reversed(found))

    @cached_property
    def _undecayed(self) -> set[str]:
        """The parameters without weight decay: norms, biases, and what the model names."""
        network = self.network
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
