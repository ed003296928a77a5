"""Cutting a model that cannot be recorded: between its modules, by running its own code.

The suffix runs the whole model, with stand-ins for its inputs. A call of a frozen, deterministic
module that gets only stand-ins is not carried out: stand-ins for its results are returned. As soon
as the code needs a value, the result it needs becomes a boundary tensor. What runs is the user's
own ``forward`` with all its branches, so modes and optional inputs mean what they always mean.

Once a value has been read, nothing more is skipped: up to there the code cannot have branched on
values, so the prefix took the same path; behind it, it might not.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from headstart.core.errors import ConfigError
from headstart.modules.modes import evaluate, untouched
from headstart.prefix import calls
from headstart.prefix.boundary import TensorSpec, laid_out, specify
from headstart.prefix.calls import Call, CallKey
from headstart.prefix.identity import describe_code, describe_modules
from headstart.prefix.inputs import Inputs, probe_batches
from headstart.prefix.parts import Mode
from headstart.prefix.precision import Dtype
from headstart.prefix.result import Placed
from headstart.prefix.standin import NeededError, Origin, Reads, StandIn, resolved
from headstart.prefix.terms import Terms


def cut_modules(
    model: nn.Module,
    inputs: Inputs,
    tensors: list[Tensor],
    terms: Terms,
    dtype: Dtype,
    bandwidth: float,
) -> Placed | str:
    """Cut a model between modules; return the cut, not yet checked, or why there is none."""
    pairs, others, _ = probe_batches(tensors)
    known = calls.pure_calls(model, inputs, (pairs, others), terms)
    if all(call.cheap for call in known.values()):
        return "no module that it calls is frozen and deterministic"
    player = Player(model, inputs, known)
    try:
        boundary, skipped, absent = _demanded(player, pairs, terms)
    except Exception as error:  # the model's own code may raise anything when it meets a stand-in
        told = str(error).strip().splitlines() or [type(error).__name__]
        return f"it does not run behind a cut ({told[0]})"
    if all(name == "" for name, _, _ in boundary):
        return "its own code works on its inputs before any frozen module does"
    specs = []
    for origin in boundary:
        spec = specify(_name(origin), player.like(origin, pairs), len(pairs[0]), dtype)
        if spec is None:
            return f"the result of {origin[0]!r} does not have the items along its first axis"
        specs.append(spec)
    prefix = ModulePrefix(player, tuple(boundary), skipped)
    suffix = ModuleSuffix(player, tuple(boundary), tuple(specs), absent)
    seconds = _measured(model, prefix, inputs, tensors)
    reading = sum(spec.bytes for spec in specs) / bandwidth
    ends = tuple(f"the result of {name!r} is needed" for name, _, _ in boundary if name)
    return Placed(
        prefix, suffix, tuple(specs), "modules", (seconds, 0.0, reading), ends, prefix.describe
    )


def _demanded(
    player: Player, batch: list[Tensor], terms: Terms
) -> tuple[list[Origin], frozenset[str], frozenset[str]]:
    """Run behind the cut again and again, until every value that is needed is given.

    Returns:
        The boundary; the modules whose calls were skipped in some mode; those of them that ran in
        none.
    """
    model = player.model
    boundary: list[Origin] = []
    while True:
        skipped: set[str] = set()
        ran: set[str] = set()
        try:
            for put in (evaluate, terms.train):
                with untouched(model):
                    put(model)
                    rows = {origin: player.like(origin, batch) for origin in boundary}
                    _, names, others = player.run(rows, len(batch[0]), batch[0].device)
                    skipped |= names
                    ran |= others
            return boundary, frozenset(skipped), frozenset(skipped - ran)
        except NeededError as needed:
            if needed.origin in boundary:
                raise RuntimeError("a value is asked for again and again") from needed
            boundary.append(needed.origin)


@dataclass(frozen=True, eq=False)
class Player:
    """Runs a model in which calls of frozen modules are skipped.

    Attributes:
        model: the model.
        inputs: how it is called.
        known: the calls that may be skipped, with their results for the probe batch.
    """

    model: nn.Module
    inputs: Inputs
    known: Mapping[CallKey, Call]

    def like(self, origin: Origin, batch: Sequence[Tensor]) -> Tensor:
        """Return the value of an origin for the probe batch."""
        name, number, position = origin
        if not name:
            return batch[position]
        found: Tensor = self.known[name, number].tensors[position]
        return found

    def run(
        self, rows: Mapping[Origin, Tensor], count: int, device: torch.device
    ) -> tuple[Any, set[str], set[str]]:
        """Run the model's own code on stand-ins and stored rows.

        Args:
            rows: stored values, each ``(count, ...)``.
            count: the number of items.
            device: where the model is.

        Returns:
            The model's output, the names of modules whose calls were skipped, and of modules that
            could have been skipped and ran.
        """
        session = _Session(self, rows, count, device)
        leaves = [session.stand_in(like, ("", 0, i)) for i, like in enumerate(self.inputs.outlines)]
        args, kwargs = self.inputs.call(leaves)
        with session.installed():
            output = self.model(*args, **kwargs)
        return resolved(output), session.skipped, session.ran


class _Session:
    """One run: counts calls, and answers those that are skipped."""

    def __init__(
        self, player: Player, rows: Mapping[Origin, Tensor], count: int, device: torch.device
    ) -> None:
        self.player, self.rows, self.count, self.device = player, rows, count, device
        self.numbers: Counter[str] = Counter()
        self.reads = Reads()
        self.skipped: set[str] = set()
        self.ran: set[str] = set()

    def stand_in(self, like: Tensor, origin: Origin, value: Tensor | None = None) -> StandIn:
        """Make a stand-in, with the stored value if there is one."""
        value = self.rows.get(origin) if value is None else value
        return StandIn.make(like, self.count, self.device, origin, value, self.reads)

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Stand before the ``forward`` of every module that may be skipped; then step aside."""
        modules = dict(self.player.model.named_modules())
        names = dict.fromkeys(name for name, _ in self.player.known)
        before = {name: modules[name].__dict__.get("forward") for name in names}
        for name in names:
            modules[name].__dict__["forward"] = self._guarded(name, modules[name].forward)
        try:
            yield
        finally:
            for name, inner in before.items():
                del modules[name].__dict__["forward"]
                if inner is not None:
                    modules[name].__dict__["forward"] = inner

    def _guarded(self, name: str, forward: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            number = self.numbers[name]
            self.numbers[name] += 1
            known = self.player.known.get((name, number))
            given = [v for v in pytree.tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
            stand_ins = [v for v in given if isinstance(v, StandIn)]
            absent = bool(given) and len(stand_ins) == len(given)
            if known is None or self.reads.any or not absent:
                self.ran.add(name)
                return forward(*args, **kwargs)
            self.skipped.add(name)
            values: list[Tensor] | None = None
            if known.cheap and all(v.value is not None for v in stand_ins):
                # A pooling or an activation of a stored row: nothing more to store.
                again = forward(*resolved(args), **resolved(kwargs))
                values = [v for v in pytree.tree_leaves(again) if isinstance(v, Tensor)]
            else:
                self.numbers.update(known.inside)
            return known.answer(
                lambda like, i: self.stand_in(
                    like, (name, number, i), None if values is None else values[i]
                )
            )

        return call


class _ModulePart(nn.Module):
    def __init__(self, player: Player, boundary: tuple[Origin, ...]) -> None:
        super().__init__()
        # Not registered: the part's own parameters are those adopted below.
        self.__dict__["_player"] = player
        self._boundary = boundary


class ModulePrefix(_ModulePart):
    """Runs the model until the boundary tensors are there, and stops."""

    def __init__(
        self, player: Player, boundary: tuple[Origin, ...], skipped: frozenset[str]
    ) -> None:
        super().__init__(player, boundary)
        self._names = _outermost(skipped)
        for name in self._names:
            *path, key = name.split(".")
            owner: nn.Module = self
            for step in path:
                owner = owner._modules.setdefault(step, nn.Module())  # type: ignore[assignment]
            owner._modules[key] = player.model.get_submodule(name)

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, ...]:
        """Return the boundary tensors, each ``(n, *shape)``, detached."""
        player: Player = self.__dict__["_player"]
        given = player.inputs.flatten(args, kwargs)
        player.inputs.check_items(given)
        found = {("", 0, i): tensor for i, tensor in enumerate(given)}
        with torch.no_grad():
            calls.results(player.model, args, kwargs, self._boundary, found)
        return tuple(found[origin].detach() for origin in self._boundary)

    def describe(self) -> dict[str, Any]:
        """Return what is computed up to the boundary, in plain values."""
        model = self.__dict__["_player"].model
        parents = {""} | {
            name.rsplit(".", depth)[0]
            for name in self._names
            for depth in range(1, name.count(".") + 1)
        }
        described = describe_modules({name: model.get_submodule(name) for name in self._names})
        return {
            **described,
            "called_from": describe_code({n: model.get_submodule(n) for n in sorted(parents)}),
            "results": [list(origin) for origin in self._boundary],
        }


class ModuleSuffix(_ModulePart):
    """Runs the model's own code behind the boundary."""

    def __init__(
        self,
        player: Player,
        boundary: tuple[Origin, ...],
        specs: tuple[TensorSpec, ...],
        skipped: frozenset[str],
    ) -> None:
        super().__init__(player, boundary)
        self._specs = specs
        self._modes = nn.ModuleList()
        self._adopt(self, player.model, "", skipped)

    def _adopt(
        self, place: nn.Module, module: nn.Module, name: str, skipped: frozenset[str]
    ) -> None:
        """Register all that is not skipped, in the places it has in the model."""
        self._modes.append(Mode(module))
        place._parameters.update(module._parameters)
        place._buffers.update(module._buffers)
        place._non_persistent_buffers_set = set(module._non_persistent_buffers_set)
        for key, child in module._modules.items():
            path = f"{name}.{key}" if name else key
            if child is None or path in skipped:
                continue
            if any(other.startswith(path + ".") for other in skipped):
                place._modules[key] = nn.Module()
                self._adopt(place._modules[key], child, path, skipped)  # type: ignore[arg-type]
            else:
                place._modules[key] = child

    def forward(self, *rows: Tensor) -> Any:
        """Return the model's output.

        Args:
            rows: the boundary tensors, each ``(n, *shape)``, in their stored type. They are not
                changed, whatever works in place behind the cut.
        """
        found = tuple(tuple(row.shape[1:]) for row in rows)
        if found != tuple(spec.shape for spec in self._specs):
            raise ConfigError(
                (
                    f"the boundary has {len(self._specs)} tensors of shapes"
                    f" {[spec.shape for spec in self._specs]} an item, found {list(found)}",
                ),
                hint="pass the rows of this very cut, in order",
            )
        player: Player = self.__dict__["_player"]
        # A copy each: what the model's code does in place must not reach the stored rows.
        values = {
            origin: laid_out(row.to(getattr(torch, spec.compute), copy=True), spec.order)
            for origin, spec, row in zip(self._boundary, self._specs, rows, strict=True)
        }
        return player.run(values, len(rows[0]), rows[0].device)[0]


def _outermost(names: frozenset[str]) -> tuple[str, ...]:
    return tuple(
        name for name in sorted(names) if not any(name.startswith(other + ".") for other in names)
    )


def _name(origin: Origin) -> str:
    name, number, position = origin
    plain = name.replace(".", "_") or "input"
    return plain + (f"_call{number}" if number else "") + (f"_{position}" if position else "")


def _measured(model: nn.Module, prefix: nn.Module, inputs: Inputs, tensors: list[Tensor]) -> float:
    batch = [tensor.detach()[:16] for tensor in tensors]
    args, kwargs = inputs.call(batch)
    seconds = []
    with untouched(model):
        evaluate(model)
        for _ in range(3):
            begun = time.perf_counter()
            prefix(*args, **kwargs)
            if batch[0].is_cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begun)
    return min(seconds) / len(batch[0])


__all__ = ["ModulePrefix", "ModuleSuffix", "Player", "cut_modules"]
