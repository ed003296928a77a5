"""What has been seen of a script so far: its networks, passes, optimizers and data loaders."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakIdKeyDictionary

from headstart.audit.beneath import Beneath
from headstart.audit.events import Call, Pass, Purpose
from headstart.audit.facts import (
    LoaderFacts,
    ModeCall,
    Network,
    OptimizerFacts,
    Part,
    SchedulerFacts,
)
from headstart.audit.keras_watch import KerasWatch
from headstart.audit.parameters import ParameterFacts, frozen_modules, sample_of
from headstart.audit.records import Place
from headstart.modules import kinds

_ALONG = 0.5
"""Cosine from which a move counts as one towards another parameter; at random it is near 0."""
MOST = 2000
"""Passes that are kept; beyond that every second one is dropped, again and again."""


class Scene:
    """The facts that checks read.

    Attributes:
        networks: in the order of their first pass.
        passes: the passes that were looked at closely, in order; not all of a long run.
        modes: calls of ``train()`` and ``eval()`` by the user's code, in order; the first 2,000.
        optimizers, schedulers, loaders: in the order in which they were seen.
        steps: steps of all optimizers so far.
        n_passes: passes so far.
        backwards: backward passes so far, and since the latest step.
        passes_at_backward: passes that had been seen at the latest backward pass.
        steppers: by number of a network, the numbers of the optimizers that stepped it.
        first_values: by number of a network, the first eight values of every parameter, before its
            first pass.
        names: by number of a network, the names of its parameters.
        between: what sees the user's own code until the next network runs.
        notes: remarks about the audit.
        keras: what happened in Keras models.
    """

    def __init__(self) -> None:
        self.networks: list[Network] = []
        self.passes: list[Pass] = []
        self.modes: list[ModeCall] = []
        self.optimizers: list[OptimizerFacts] = []
        self.schedulers: list[SchedulerFacts] = []
        self.loaders: list[LoaderFacts] = []
        self.steps = 0
        self.n_passes = 0
        self.backwards = 0
        self.backwards_since_step = 0
        self.passes_at_backward = 0
        self.steppers: dict[int, set[int]] = {}
        self.names: dict[int, frozenset[str]] = {}
        self.between: Beneath | None = None
        self.notes: list[str] = []
        self.keras = KerasWatch()
        self.parameters: Any = WeakIdKeyDictionary()
        self.parts: Any = WeakIdKeyDictionary()
        self.set_modes: Any = WeakIdKeyDictionary()
        """By module: the latest call of ``train()`` or ``eval()`` that reached it."""
        self._every = 1
        self.first_values: dict[int, list[Tensor]] = {}
        self._values: dict[int, list[tuple[weakref.ref[Any], Tensor]]] = {}

    # ------------------------------------------------------------------------------ for checks

    def passes_for(self, purpose: Purpose, *, failed: bool = False) -> Iterator[Pass]:
        """Yield the passes of a purpose, in order.

        Networks that are moving averages of others (``moved_directly``) have no extraction.
        """
        for each in self.passes:
            averaged = purpose == "extraction" and each.network.moved_directly
            if each.purpose == purpose and not averaged and (failed or not each.failed):
                yield each

    def facts_of(self, parameter: Tensor) -> ParameterFacts | None:
        """Return what is known of a parameter; None where no pass used its network yet."""
        found: ParameterFacts | None = self.parameters.get(parameter)
        return found

    def mode_call(self, module: nn.Module) -> ModeCall | None:
        """Return the latest call of ``train()`` or ``eval()`` that reached a module."""
        found: ModeCall | None = self.set_modes.get(module)
        return found

    def mode_place(self, part: Part, otherwise: Place) -> Place:
        """Return the line that set the mode of a module; ``otherwise`` where none did."""
        return otherwise if part.mode is None or not part.mode.place.line else part.mode.place

    def stays_frozen(self, seen: Pass, part: Part) -> bool:
        """Whether a module was frozen in a pass, and meant to be.

        By ``requires_grad``, by running without autograd, or by an optimizer that holds nothing of
        it while it steps the rest. Not where it is switched on and off in turns, as the networks of
        a GAN are; nor in a network that is a moving average of another.
        """
        if seen.network.moved_directly:
            return False
        if part.name not in seen.frozen:
            return self._is_left_out(seen, part)
        flips, around = seen.network.flips, part.name
        while around and around.rpartition(".")[0] in seen.frozen and part.own == 0:
            around = around.rpartition(".")[0]
        within = f"{around}." if around and around in seen.frozen else ""
        return not any(times > 1 for name, times in flips.items() if name.startswith(within))

    def _is_left_out(self, seen: Pass, part: Part) -> bool:
        """Whether a module of a trained network has parameters that no optimizer holds."""
        network, around = seen.network, part.name
        if not network.stepped or not seen.grad or not part.name:
            return False
        known = self.names.get(network.number, ())
        while around and not _holds_any(around, known):
            around = around.rpartition(".")[0]
        if not around or _holds_any(around, network.stepped):
            return False
        return part.name in seen.quiet or not _holds_any(around, network.held)

    def feeds_training(self, seen: Pass) -> bool:
        """Whether what a pass put out was taken by one that gradients came back to."""
        waiting, known = list(seen.consumers), {id(seen)}
        while waiting:
            each = waiting.pop()
            if id(each) in known:
                continue
            known.add(id(each))
            if each.trained:
                return True
            waiting += each.consumers
        return False

    def restates(self, seen: Pass) -> bool:
        """Whether a pass ran only to measure batch-norm statistics anew, which is no mistake.

        Its result is thrown away; or only norms are in training mode, which somebody must have set
        one by one; or its norms average over all batches, which they do for nothing else.
        """
        if seen.trained:
            return False
        if seen.discarded:
            return True
        norms = [c for c in seen.calls if c.part.running and c.training]
        if not norms:
            return False
        if not seen.training and all(not c.training or c.part.leaf for c in seen.calls):
            return all(c.part.normalises for c in seen.calls if c.training)
        return seen.cumulative

    def live_norms(self, seen: Pass) -> list[Call]:
        """Return the calls that normalised by the batch; instance norms do not."""
        return [c for c in seen.calls if c.part.normalises and (c.training or c.part.batch_only)]

    def live_chance(self, seen: Pass) -> list[Call]:
        """Return the calls that drew random numbers, such as those of dropout."""
        return [call for call in seen.calls if call.part.random and call.training]

    def was_cut_off(self, seen: Pass) -> bool:
        """Whether a backward pass may still have been to come when the script ended."""
        return seen.grad and seen.number > self.passes_at_backward

    def trained_passes(self, network: Network) -> Iterator[Pass]:
        """Yield the passes of a network to which gradients came back."""
        return (each for each in self.passes if each.trained and each.network is network)

    def look_between(self, view: Beneath) -> None:
        """Let a view see functions of torch until the next network runs, or a backward pass.

        Not while networks run: some of torch's layers compute otherwise where anything looks on.
        """
        self.end_between()
        self.between = view
        view.start()

    def end_between(self) -> None:
        """Take the view away."""
        if self.between is not None:
            self.between.stop()
            self.between = None

    # ---------------------------------------------------------------------------- for observer

    def part(self, module: nn.Module, name: str) -> Part:
        """Return what is known of a module, looking at it when it is new."""
        found: Part | None = self.parts.get(module)
        if found is None:
            running = kinds.running_buffers(module)
            found = Part(
                name=name,
                kind=type(module).__name__,
                ref=weakref.ref(module),
                running=running,
                batch_only=kinds.is_batch_only_norm(module),
                items_only=kinds.is_instance_norm(module) or kinds.is_constant_norm(module),
                random=kinds.randomness(module),
                leaf=not module._modules,
                own=sum(p is not None for p in module._parameters.values()),
            )
            for buffer in running:
                value = module._buffers[buffer]
                assert value is not None
                found.first[buffer] = value.detach().clone()
            self.parts[module] = found
        return found

    def keep(self, seen: Pass) -> None:
        """Keep a pass that was looked at closely, with what is known of its modes only now."""
        norms = []
        for call in seen.calls:
            part = call.part
            module = part.ref() if call.training and (part.normalises or part.random) else None
            if module is not None:
                part.mode = self.mode_call(module)
                if part.running:
                    norms.append(getattr(module, "momentum", 0.0) is None)
        seen.cumulative = bool(norms) and all(norms)
        if seen.number % self._every == 0:
            self.passes.append(seen)
        if len(self.passes) > MOST:
            del self.passes[MOST // 2 :: 2]
            self._every *= 2

    def look_for_average(self, network: Network, module: nn.Module) -> None:
        """Find out whether a network moves towards one that is trained, without an optimizer."""
        named = [p for p in module.parameters() if p.is_floating_point() and p.numel() >= 16]
        largest = sorted(named, key=lambda p: -p.numel())[:3]
        now = [(weakref.ref(p), sample_of(p)) for p in largest]
        before = self._values.get(network.number)
        self._values[network.number] = now
        if before is None or network.stepped or network.moved_directly:
            return
        for (ref, old), (_, new) in zip(before, now, strict=False):
            parameter = ref()
            if parameter is None or torch.equal(old, new):
                continue
            facts = self.facts_of(parameter)
            if facts is not None and not facts.held and self.source_of(parameter, old) is not None:
                network.moved_directly = True

    def source_of(self, parameter: Tensor, before: Tensor) -> ParameterFacts | None:
        """Return the trained parameter towards which another one has moved; None: there is none.

        Args:
            parameter: it, now.
            before: a sample of it from before, as :func:`sample_of` takes it.
        """
        move = sample_of(parameter) - before
        best: tuple[float, ParameterFacts] | None = None
        for other, facts in self.parameters.items():
            if other is parameter or not facts.steps or other.shape != parameter.shape:
                continue
            way = sample_of(other) - before
            norm = float(move.norm() * way.norm())
            cosine = float((move * way).sum()) / norm if norm else 0.0
            if cosine > _ALONG and (best is None or cosine > best[0]):
                best = (cosine, facts)
        return None if best is None else best[1]

    def loaded(self, module: nn.Module) -> None:
        """Take note that ``load_state_dict`` has given a module other values."""
        for parameter in module.parameters():
            facts = self.facts_of(parameter)
            if facts is not None:
                facts.loads += 1

    def learn(
        self, network: Network, module: nn.Module, strangers: Mapping[str, nn.Module]
    ) -> frozenset[str]:
        """Take note of every parameter of a network; return the names of its frozen modules.

        Args:
            network: what is known of it.
            module: it.
            strangers: modules that it runs although it does not know them, by name.
        """
        named = list(module.named_parameters())
        known = len(named)
        for path, stranger in strangers.items():
            named += stranger.named_parameters(path)
        for at, (name, parameter) in enumerate(named):
            self._learn(network, name, parameter).stranger |= at >= known
        if len(self.names.get(network.number, ())) != len(named):
            self.names[network.number] = frozenset(name for name, _ in named)
        return frozen_modules(module)

    def _learn(self, network: Network, name: str, parameter: nn.Parameter) -> ParameterFacts:
        trainable = parameter.requires_grad
        facts = self.facts_of(parameter)
        if facts is None:
            facts = ParameterFacts(name, network, parameter.numel(), trainable, self.steps)
            self.parameters[parameter] = facts
        elif network not in facts.networks:
            facts.networks.append(network)
            facts.names.append(name)
            if facts.held:
                network.held.add(name)
        if facts.trainable != trainable:
            facts.trainable = trainable
            facts.flips += 1
            for each, known in facts.places():
                each.flips[known] = facts.flips
            facts.frozen_since = None if trainable else self.steps
        if facts.frozen_since is not None:
            facts.frozen_steps = max(facts.frozen_steps, self.steps - facts.frozen_since)
        return facts


def _holds_any(path: str, names: Iterable[str]) -> bool:
    """Whether any of these parameters is inside of a module."""
    return any(name.startswith(f"{path}.") for name in names)


__all__ = ["Scene"]
