"""Watches a script through torch's global hooks, and tells checks what happens.

Nothing that the script computes changes: no random number is drawn, no tensor written, no hook
returns anything. The first passes of a network are looked at closely; later ones are counted, and
every sixteenth is looked at, and those after a change of mode or at the beginning of an epoch.
"""

from __future__ import annotations

import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as hooks
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from headstart.audit import events
from headstart.audit.check import EVENTS, Check
from headstart.audit.imports import After
from headstart.audit.patches import Patches
from headstart.audit.places import is_discarded, place_of, user_frame, user_place
from headstart.audit.records import NOWHERE, Finding
from headstart.audit.scene import Scene
from headstart.modules.keras_layers import is_keras
from headstart.modules.observing import tensors_in

DENSE = 48
"""The first passes of a network, all looked at closely."""
EVERY = 16
"""Later ones: every so many."""
HOT = 3
"""Passes looked at closely after a mode was set or an epoch began."""
_PATIENCE = 20
"""How often a script may catch the exception that is to end it."""
LOSSES = (
    "cross_entropy",
    "nll_loss",
    "binary_cross_entropy",
    "binary_cross_entropy_with_logits",
    "mse_loss",
    "l1_loss",
    "smooth_l1_loss",
    "huber_loss",
    "kl_div",
    "multi_margin_loss",
    "multilabel_soft_margin_loss",
)


class StopAudit(BaseException):
    """Ends the script after the steps that were asked for; no ``except Exception`` swallows it."""


class Observer:
    """One audit: install it, run the script, remove it, and ask for the findings.

    Args:
        checks: one instance of each.
        steps: raise :class:`StopAudit` after so many steps of optimizers; None: never.
    """

    def __init__(self, checks: Iterable[Check], steps: int | None = None) -> None:
        self.scene = Scene()
        self.checks = tuple(checks)
        self.limit = steps
        self._listeners: dict[str, list[tuple[Check, Callable[..., None]]]] = {
            event: [
                (check, getattr(check, event))
                for check in self.checks
                if getattr(type(check), event) is not getattr(Check, event)
            ]
            for event in EVENTS
        }
        self._handles: list[Any] = []
        self._patches = Patches()
        self._owner = os.getpid()
        self._thread = threading.get_ident()
        self._aside = 0  # inside a trial of a check, or inside a backward pass
        self._networks: dict[int, events.Network] = {}
        self._names: dict[int, dict[int, str]] = {}
        self._interned: dict[tuple[Any, ...], tuple[events.Call, ...]] = {}
        self._depth = 0
        self._pass: events.Pass | None = None
        self._network: events.Network | None = None
        self._raw: list[tuple[nn.Module, bool, bool, tuple[int, ...] | None]] | None = None
        self._hot: dict[int, int] = {}
        self._outputs: dict[int, tuple[Any, weakref.ref[events.Pass]]] = {}
        self._optimizers: dict[int, events.OptimizerFacts] = {}
        self._schedulers: dict[int, events.SchedulerFacts] = {}
        self._loaders: dict[int, events.LoaderFacts] = {}
        self._loader: events.LoaderFacts | None = None
        self._in_train = 0
        self._mode_call: events.ModeCall | None = None
        self._in_schedule = 0
        self._failed: set[str] = set()
        self._stops = 0
        self.on_swallowed: Callable[[], None] = lambda: None
        """Called where the script has caught :class:`StopAudit` again and again, and goes on."""
        self._finder: Any = None

    # ---------------------------------------------------------------------------- installation

    def install(self) -> None:
        """Begin to watch."""
        self._handles = [
            hooks.register_module_forward_pre_hook(self._enter),
            hooks.register_module_forward_hook(self._leave, with_kwargs=True, always_call=True),
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        around = self._patches.around
        around(nn.Module, "train", self._around_train)
        around(nn.Module, "load_state_dict", self._around_load)
        around(torch.autograd, "backward", self._around_backward)
        around(torch.autograd, "grad", self._around_grad)
        around(Optimizer, "__init__", self._around_optimizer)
        for name in LOSSES:
            around(nn.functional, name, lambda f, name=name: self._around_loss(name, f))  # type: ignore[misc]
        from torch.optim import lr_scheduler
        from torch.utils.data import dataloader

        around(dataloader._BaseDataLoaderIter, "__next__", self._around_next)
        around(dataloader.DataLoader, "__iter__", self._around_iter)
        kinds = [k for k in vars(lr_scheduler).values() if isinstance(k, type)]
        base = lr_scheduler.LRScheduler
        for kind in dict.fromkeys(kinds):
            if issubclass(kind, base):
                around(kind, "step", self._around_schedule)
        around(base, "__init__", self._around_scheduler)
        around(lr_scheduler.ReduceLROnPlateau, "__init__", self._around_scheduler)
        if "keras" in sys.modules:
            self.scene.keras.install()
        else:
            self._finder = After("keras", self.scene.keras.install)
            sys.meta_path.insert(0, self._finder)

    def remove(self) -> None:
        """Stop watching, and leave torch as it was."""
        for handle in self._handles:
            handle.remove()
        self._handles = []
        self._patches.undo()
        self.scene.keras.remove()
        if self._finder in sys.meta_path:
            sys.meta_path.remove(self._finder)

    def findings(self) -> tuple[Finding, ...]:
        """Ask every check what it found; the worst come first, then the order of the table."""
        found: list[Finding] = []
        self._aside += 1
        try:
            for check in self.checks:
                try:
                    found += check.finish(self.scene)
                except Exception as error:  # a check that fails must not hide the others
                    self._note_failure(check, error)
        finally:
            self._aside -= 1
        ranks = {"error": 0, "warning": 1, "info": 2}
        return tuple(sorted(found, key=lambda finding: ranks[finding.severity]))

    def crashed(self, error: BaseException) -> None:
        """Tell every check of an exception that ended the script."""
        for check in self.checks:
            try:
                check.on_crash(error, self.scene)
            except Exception as fault:
                self._note_failure(check, fault)

    def _note_failure(self, check: Check, error: Exception) -> None:
        if check.code not in self._failed:
            self._failed.add(check.code)
            self.scene.notes.append(
                f"the check {check.code} failed and says nothing:"
                f" {type(error).__name__}: {' '.join(str(error).split())[:200]}"
            )

    def _tell(self, event: str, seen: Any) -> None:
        listeners = self._listeners[event]
        if not listeners:
            return
        self._aside += 1
        try:
            for check, listener in listeners:
                try:
                    listener(seen, self.scene)
                except Exception as error:
                    self._note_failure(check, error)
        finally:
            self._aside -= 1

    def _elsewhere(self) -> bool:
        """Whether this is none of our business: another process or thread, or a check's trial."""
        return bool(self._aside) or threading.get_ident() != self._thread

    # ------------------------------------------------------------------------------- modules

    def _enter(self, module: nn.Module, args: tuple[Any, ...]) -> None:
        if self._aside or threading.get_ident() != self._thread:
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
        self._begin(network, module, args)

    def _stop(self) -> None:
        self._stops += 1
        if self._stops > _PATIENCE:
            self.on_swallowed()
        raise StopAudit

    def _known(self, module: nn.Module) -> events.Network | None:
        """Return the facts of a network; None where it has no parameters."""
        key = id(module)
        found = self._networks.get(key)
        if found is None:
            # Keras passes modes with its calls: KerasWatch looks at its layers.
            count = 0 if is_keras(module) else sum(1 for _ in module.parameters())

            def forget(_ref: Any, key: int = key) -> None:
                for table in (self._networks, self._names, self._hot):
                    table.pop(key, None)

            kind, ref = type(module).__name__, weakref.ref(module, forget)
            place = user_place() if count else NOWHERE
            found = events.Network(len(self.scene.networks), kind, ref, place, count)
            self._networks[key] = found
            self._hot[key] = HOT
            if count:
                self.scene.networks.append(found)
        return found if found.parameters else None

    def _begin(self, network: events.Network, module: nn.Module, args: tuple[Any, ...]) -> None:
        scene = self.scene
        scene.n_passes += 1
        network.passes += 1
        hot = self._hot.get(id(module), 0)
        if hot:
            self._hot[id(module)] = hot - 1
        closely = bool(hot) or network.passes <= DENSE or network.passes % EVERY == 0
        if self.limit is not None and scene.steps >= self.limit:
            self._stop()
        if not closely:
            self._pass, self._raw = None, None
            return
        frame = user_frame()
        grad = torch.is_grad_enabled()
        self._pass = events.Pass(
            number=scene.n_passes,
            network=network,
            place=place_of(frame),
            discarded=is_discarded(frame),
            training=module.training,
            grad=grad,
            inference=torch.is_inference_mode_enabled(),
            step=scene.steps,
            loader=None if self._loader is None else self._loader.number,
            args=args,
        )
        frozen = scene.learn(network, module)
        self._pass.frozen = frozen
        shape = tuple(args[0].shape) if args and isinstance(args[0], Tensor) else None
        self._raw = [(module, module.training, grad, shape)]
        self._first_sight(module)
        if network.passes & (network.passes - 1) == 0:
            scene.look_for_average(network, module)

    def introduce(self, module: nn.Module) -> None:
        """Look at a network before it runs."""
        network = self._known(module)
        if network is not None:
            self.scene.learn(network, module)
            self._first_sight(module)

    def _first_sight(self, module: nn.Module) -> None:
        """Look at the modules of a network before their first run, for their statistics."""
        names = self._names.get(id(module))
        if names is None or any(id(part) not in names for part in module.modules()):
            names = {id(part): name for name, part in module.named_modules()}
            self._names[id(module)] = names
            for name, part in module.named_modules():
                self.scene.part(part, name)
            number = self._networks[id(module)].number
            self.scene.first_values.setdefault(
                number,
                [p.detach().reshape(-1)[:8].to("cpu", copy=True) for p in module.parameters()],
            )

    def _leave(self, module: nn.Module, args: Any, *rest: Any) -> None:
        if self._aside or not self._depth or threading.get_ident() != self._thread:
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
        seen.calls = self._calls(module, raw or [])
        self._link(seen, inputs, list(tensors_in(output)))
        self.scene.keep(seen)
        self._tell("on_pass", seen)
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
                events.Call(self.scene.part(part, names.get(id(part), "")), training, grad, shape)
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

    # ------------------------------------------------------------------------------ optimizers

    def _around_optimizer(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def init(optimizer: Optimizer, *args: Any, **kwargs: Any) -> None:
            original(optimizer, *args, **kwargs)
            self._optimizer(optimizer)

        return init

    def _optimizer(self, optimizer: Optimizer) -> events.OptimizerFacts:
        key = id(optimizer)
        found = self._optimizers.get(key)
        if found is None:
            number, kind = len(self.scene.optimizers), type(optimizer).__name__

            def forget(_ref: Any) -> None:
                self._optimizers.pop(key, None)

            ref = weakref.ref(optimizer, forget)
            found = events.OptimizerFacts(number, kind, ref, user_place())
            self._optimizers[key] = found
            self.scene.optimizers.append(found)
        return found

    def _before_step(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if self._elsewhere():
            return
        self._depth = 0  # a pass that was left by an exception of the user's is over
        scene, facts = self.scene, self._optimizer(optimizer)
        if self.limit is not None and scene.steps >= self.limit:
            self._stop()
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                known = scene.facts_of(parameter)
                if known is not None:
                    known.held += 1
                    if parameter.requires_grad and parameter.grad is not None:
                        known.steps += 1
                        for network in known.networks:
                            network.stepped.add(known.name)
                            scene.steppers.setdefault(network.number, set()).add(facts.number)
        if self._listeners["before_step"]:
            self._tell("before_step", self._step(optimizer, facts, scene.steps + 1))

    def _after_step(self, optimizer: Optimizer, _args: Any, _kwargs: Any) -> None:
        if self._elsewhere():
            return
        scene, facts = self.scene, self._optimizer(optimizer)
        scene.steps += 1
        facts.steps += 1
        if self._listeners["after_step"]:
            self._tell("after_step", self._step(optimizer, facts, scene.steps))
        scene.backwards_since_step = 0
        if self.limit is not None and scene.steps >= self.limit:
            self._stop()

    def _step(self, optimizer: Optimizer, facts: events.OptimizerFacts, number: int) -> events.Step:
        since = self.scene.backwards_since_step
        return events.Step(number, optimizer, facts, user_place(), since)

    def _around_scheduler(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def init(scheduler: Any, *args: Any, **kwargs: Any) -> None:
            self._in_schedule += 1
            try:
                original(scheduler, *args, **kwargs)
            finally:
                self._in_schedule -= 1
            if not self._in_schedule and not self._elsewhere():
                self._scheduler(scheduler)

        return init

    def _scheduler(self, scheduler: Any) -> events.SchedulerFacts:
        key = id(scheduler)
        found = self._schedulers.get(key)
        if found is None:
            optimizer = getattr(scheduler, "optimizer", None)
            facts = self._optimizer(optimizer) if isinstance(optimizer, Optimizer) else None

            def forget(_ref: Any) -> None:
                self._schedulers.pop(key, None)

            ref = weakref.ref(scheduler, forget)
            kind = type(scheduler).__name__
            found = events.SchedulerFacts(kind, ref, user_place(), facts)
            self._schedulers[key] = found
            self.scene.schedulers.append(found)
        return found

    def _around_schedule(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def step(scheduler: Any, *args: Any, **kwargs: Any) -> Any:
            self._in_schedule += 1
            try:
                result = original(scheduler, *args, **kwargs)
            finally:
                self._in_schedule -= 1
            if self._in_schedule or self._elsewhere():  # its own first step, or one inside another
                return result
            facts = self._scheduler(scheduler)
            facts.steps += 1
            facts.last = user_place()
            if facts.first is None:
                facts.first = 0 if facts.optimizer is None else facts.optimizer.steps
                facts.backwards = self.scene.backwards
            optimizer = None if facts.optimizer is None else facts.optimizer.ref()
            if optimizer is not None and len(facts.rates) < 4096:
                facts.rates.append(float(optimizer.param_groups[0]["lr"]))
            return result

        return step

    # --------------------------------------------------------------------- everything else

    def _around_train(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def train(module: nn.Module, mode: bool = True) -> Any:
            if self._elsewhere():
                return original(module, mode)
            scene = self.scene
            if not self._in_train:
                call = events.ModeCall(
                    number=len(scene.modes) + 1,
                    mode=bool(mode),
                    kind=type(module).__name__,
                    place=user_place(),
                    step=scene.steps,
                    passes=scene.n_passes,
                    module=module,
                    target=weakref.ref(module),
                )
                self._mode_call = call
                self._tell("on_mode", call)
                call.module = None
                if len(scene.modes) < 2000:
                    scene.modes.append(call)
                for key in self._hot:
                    self._hot[key] = HOT
            scene.set_modes[module] = self._mode_call
            self._in_train += 1
            try:
                return original(module, mode)
            finally:
                self._in_train -= 1

        return train

    def _around_load(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def load(module: nn.Module, *args: Any, **kwargs: Any) -> Any:
            result = original(module, *args, **kwargs)
            if self._elsewhere():
                return result
            self.scene.loaded(module)
            if self._listeners["on_load"]:
                seen = events.Load(user_place(), self.scene.steps, self.scene.n_passes, module)
                self._tell("on_load", seen)
                seen.module = None
            return result

        return load

    def _around_backward(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def backward(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            if self._elsewhere():
                return original(tensors, *args, **kwargs)
            scene = self.scene
            self._depth = 0
            self._aside += 1  # gradient checkpointing runs modules again
            try:
                result = original(tensors, *args, **kwargs)
            finally:
                self._aside -= 1
            scene.backwards += 1
            scene.passes_at_backward = scene.n_passes
            scene.backwards_since_step += 1
            if self._listeners["on_backward"]:
                seen = events.Backward(scene.backwards, user_place(), tensors)
                self._tell("on_backward", seen)
                seen.tensors = None
            return result

        return backward

    def _around_grad(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def grad(*args: Any, **kwargs: Any) -> Any:
            if self._elsewhere():
                return original(*args, **kwargs)
            self._aside += 1
            try:
                return original(*args, **kwargs)
            finally:
                self._aside -= 1

        return grad

    def _around_loss(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def loss(input: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
            output = original(input, target, *args, **kwargs)
            if self._listeners["on_loss"] and not self._elsewhere():
                grad = torch.is_grad_enabled()
                seen = events.Loss(name, user_place(), grad, input, target, kwargs, output)
                self._tell("on_loss", seen)
                seen.input = seen.target = seen.output = None
                seen.options = {}
            return output

        return loss

    def _around_iter(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def iterate(loader: Any) -> Any:
            if self._elsewhere():
                return original(loader)
            facts = self._loader_facts(loader)
            facts.epochs += 1
            for key in self._hot:
                self._hot[key] = HOT
            iterator = original(loader)
            # Persistent workers give the same iterator again.
            iterator.__dict__["_headstart_audit"] = [facts, 0]
            return iterator

        return iterate

    def _loader_facts(self, loader: Any) -> events.LoaderFacts:
        key = id(loader)
        found = self._loaders.get(key)
        if found is None:

            def forget(_ref: Any) -> None:
                self._loaders.pop(key, None)

            number = len(self.scene.loaders)
            found = events.LoaderFacts(number, weakref.ref(loader, forget), user_place())
            self._loaders[key] = found
            self.scene.loaders.append(found)
        return found

    def _around_next(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def following(iterator: Any) -> Any:
            mark = iterator.__dict__.get("_headstart_audit")
            if mark is None or self._elsewhere():
                return original(iterator)
            facts = mark[0]
            try:
                data = original(iterator)
            except StopIteration:
                facts.complete += 1
                raise
            self._loader = facts
            facts.batches += 1
            mark[1] += 1
            if self._listeners["on_batch"]:
                dataset = getattr(iterator, "_dataset", None)
                seen = events.Batch(facts, mark[1] - 1, user_place(), data, dataset)
                self._tell("on_batch", seen)
                seen.data = seen.dataset = None
            return data

        return following


def _storage_key(tensor: Tensor) -> int | None:
    try:
        return int(tensor.untyped_storage()._cdata)
    except (NotImplementedError, RuntimeError):
        return None


__all__ = ["LOSSES", "Observer", "StopAudit"]
