"""Watches modules run: which networks, in which passes, with which modules inside.

The first passes of a network are looked at closely; later ones are counted, and every sixteenth is
looked at, and those after a change of mode or at the beginning of an epoch.
"""

from __future__ import annotations

import threading
import weakref
from typing import Any

import torch
from torch import Tensor, nn

from headstart.audit import events
from headstart.audit.facts import LoaderFacts, Network
from headstart.audit.hub import Hub
from headstart.audit.places import is_discarded, place_of, user_frame, user_place, user_trail
from headstart.audit.records import NOWHERE
from headstart.modules.keras_layers import is_keras
from headstart.modules.observing import tensors_in

DENSE = 48
"""The first passes of a network, all looked at closely."""
EVERY = 16
"""Later ones: every so many."""
HOT = 3
"""Passes looked at closely after a mode was set or an epoch began."""


class PassWatcher:
    """Gathers passes, by global forward hooks.

    Attributes:
        loader: where the latest batch came from.
        given: how many items that batch had.
        over: whether that loader has come to its end: other passes than that of its last batch
            have their inputs from elsewhere.
    """

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.loader: LoaderFacts | None = None
        self.given: int | None = None
        self.over = False
        self._networks: dict[int, Network] = {}
        self._names: dict[int, dict[int, str]] = {}
        self._strangers: dict[int, dict[str, nn.Module]] = {}
        self._interned: dict[tuple[Any, ...], tuple[events.Call, ...]] = {}
        self._depth = 0
        self._pass: events.Pass | None = None
        self._raw: list[tuple[nn.Module, bool, bool, tuple[int, ...] | None]] | None = None
        self._hot: dict[int, int] = {}
        self._outputs: dict[int, tuple[Any, weakref.ref[events.Pass]]] = {}

    def look_closely(self) -> None:
        """Look closely at the next passes of every network: something has changed."""
        for key in self._hot:
            self._hot[key] = HOT

    def surface(self) -> None:
        """Take note that no module runs: a pass that an exception has left is over."""
        self._depth = 0
        self.hub.scene.end_between()

    def enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module begins to run: a forward pre-hook."""
        hub = self.hub
        if hub.inside or threading.get_ident() != hub.thread:
            return
        if self._depth:
            self._depth += 1
            if self._raw is not None:
                shape = tuple(args[0].shape) if args and isinstance(args[0], Tensor) else None
                self._raw.append((module, module.training, torch.is_grad_enabled(), shape))
            return
        if torch.compiler.is_compiling():
            return
        self._depth = 1
        network = self._known(module)
        if network is None:
            self._pass = self._raw = None
            return
        hub.scene.end_between()
        self._begin(network, module, args)

    def _known(self, module: nn.Module) -> Network | None:
        """Return the facts of a network; None where it has no parameters."""
        key = id(module)
        found = self._networks.get(key)
        if found is None:
            # Keras passes modes with its calls: KerasWatch looks at its layers.
            count = 0 if is_keras(module) else sum(1 for _ in module.parameters())

            def forget(_ref: Any, key: int = key) -> None:
                for table in (self._networks, self._names, self._strangers, self._hot):
                    table.pop(key, None)

            kind, ref = type(module).__name__, weakref.ref(module, forget)
            place = user_place() if count else NOWHERE
            found = Network(len(self.hub.scene.networks), kind, ref, place, count)
            self._networks[key] = found
            self._hot[key] = HOT
            if count:
                self.hub.scene.networks.append(found)
        return found if found.parameters else None

    def _begin(self, network: Network, module: nn.Module, args: tuple[Any, ...]) -> None:
        scene = self.hub.scene
        scene.n_passes += 1
        network.passes += 1
        hot = self._hot.get(id(module), 0)
        if hot:
            self._hot[id(module)] = hot - 1
        closely = bool(hot) or network.passes <= DENSE or network.passes % EVERY == 0
        self.hub.stop_when_done()
        if not closely:
            self._pass, self._raw = None, None
            return
        frame = user_frame()
        grad = torch.is_grad_enabled()
        self._pass = events.Pass(
            number=scene.n_passes,
            network=network,
            place=place_of(frame),
            trail=user_trail(),
            discarded=is_discarded(frame),
            training=module.training,
            grad=grad,
            inference=torch.is_inference_mode_enabled(),
            step=scene.steps,
            loader=None if self.loader is None else self.loader.number,
            args=args,
        )
        self._first_sight(module)
        strangers = self._strangers.get(id(module), {})
        self._pass.frozen = scene.learn(network, module, strangers)
        shape = tuple(args[0].shape) if args and isinstance(args[0], Tensor) else None
        self._raw = [(module, module.training, grad, shape)]
        if network.passes & (network.passes - 1) == 0:
            scene.look_for_average(network, module)

    def introduce(self, module: nn.Module) -> None:
        """Look at a network before it runs."""
        network = self._known(module)
        if network is not None:
            self._first_sight(module)
            self.hub.scene.learn(network, module, self._strangers.get(id(module), {}))

    def _first_sight(self, module: nn.Module) -> None:
        """Look at the modules of a network before their first run, for their statistics."""
        names = self._names.get(id(module))
        if names is None or any(id(part) not in names for part in module.modules()):
            names = {id(part): name for name, part in module.named_modules()}
            self._names[id(module)] = names
            for name, part in module.named_modules():
                self.hub.scene.part(part, name)
            self._strangers[id(module)] = strangers = _strangers(module)
            for path, stranger in strangers.items():
                for name, part in stranger.named_modules(prefix=path):
                    names[id(part)] = name
                    self.hub.scene.part(part, name)
            number = self._networks[id(module)].number
            self.hub.scene.first_values.setdefault(
                number,
                [p.detach().reshape(-1)[:8].to("cpu", copy=True) for p in module.parameters()],
            )

    def leave(self, module: nn.Module, args: Any, *rest: Any) -> None:
        """A module has run, or failed: a forward hook with ``with_kwargs`` and ``always_call``."""
        hub = self.hub
        if not self._depth or hub.inside or threading.get_ident() != hub.thread:
            return
        self._depth -= 1
        if self._depth or self._pass is None:
            return
        seen, raw = self._pass, self._raw
        self._pass = self._raw = None
        kwargs, output = rest if len(rest) == 2 else ({}, rest[0] if rest else None)
        seen.failed = output is None and len(rest) == 1
        seen.kwargs, seen.output = kwargs, output
        inputs = list(tensors_in([args, kwargs]))
        seen.rows = next((t.shape[0] for t in inputs if t.ndim), None)
        if self.over and seen.rows != self.given:
            seen.loader = None
        seen.calls = self._calls(module, raw or [])
        if seen.grad:
            seen.quiet = frozenset(c.part.name for c in seen.calls if not c.grad)
        self._link(seen, inputs, list(tensors_in(output)))
        hub.scene.keep(seen)
        hub.tell("on_pass", seen)
        seen.args = seen.kwargs = seen.output = None
        seen.memo = {}

    def _calls(
        self, module: nn.Module, raw: list[tuple[nn.Module, bool, bool, tuple[int, ...] | None]]
    ) -> tuple[events.Call, ...]:
        """Return what ran as calls, one object for all equal passes."""
        key = (id(module), tuple((id(part), *rest) for part, *rest in raw))
        found = self._interned.get(key)
        if found is None or any(
            call.part.ref() is not part for call, (part, *_) in zip(found, raw, strict=True)
        ):
            names = self._names.get(id(module), {})
            found = tuple(
                events.Call(
                    self.hub.scene.part(part, names.get(id(part), "")), training, grad, shape
                )
                for part, training, grad, shape in raw
            )
            if len(self._interned) > 256:
                self._interned.clear()
            self._interned[key] = found
        return found

    def _link(self, seen: events.Pass, inputs: list[Tensor], outputs: list[Tensor]) -> None:
        """Find out which pass made the inputs, and be told when gradients reach the outputs."""
        for tensor in inputs[:8]:
            key = _storage_key(tensor)
            if key is not None and key in self._outputs:
                source = self._outputs[key][1]()
                if source is not None and source is not seen and seen not in source.consumers:
                    source.consumers.append(seen)
        for tensor in outputs[:4]:
            key = _storage_key(tensor)
            if key is not None:
                storage = tensor.untyped_storage()

                def gone(_ref: Any, key: int = key) -> None:
                    self._outputs.pop(key, None)

                self._outputs[key] = (weakref.ref(storage, gone), weakref.ref(seen))
            node = tensor.grad_fn
            if node is not None:

                def arrived(_gradients: Any) -> None:
                    seen.trained = True

                node.register_prehook(arrived)


def _strangers(module: nn.Module) -> dict[str, nn.Module]:
    """Return modules in Python lists and dicts of a network, which it does not know, by path."""
    known = {id(part) for part in module.modules()}
    found: dict[str, nn.Module] = {}
    for name, part in module.named_modules():
        for key, value in vars(part).items():
            if key.startswith("_") or not isinstance(value, list | tuple | dict):
                continue
            pairs = value.items() if isinstance(value, dict) else enumerate(value)
            for at, each in pairs:
                if isinstance(each, nn.Module) and id(each) not in known:
                    known |= {id(inner) for inner in each.modules()}
                    found[f"{name}.{key}[{at}]".lstrip(".")] = each
    return found


def _storage_key(tensor: Tensor) -> int | None:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return None


__all__ = ["PassWatcher"]
