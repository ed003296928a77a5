"""Run a network, or only the part of it up to a layer, and read what its layers put out.

Every forward hook of the package is registered here, and removed here. A pass that is not needed
beyond a layer is stopped by an exception raised in that layer's hook: this works for any module in
any mode, runs nothing behind the layer, and leaves the module unchanged.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from typing import Any, Protocol, TypeVar, cast

import torch
from torch import Tensor, fx, nn

from headstart.core.errors import BackboneError
from headstart.core.wording import nearest

T = TypeVar("T")

Before = Callable[[str, tuple[Any, ...], dict[str, Any]], None]
"""Called with a layer's name and its arguments, before it runs."""
After = Callable[[str, Any], Any]
"""Called with a layer's name and its output, when it has run; what it returns, if it is not None,
takes the place of the output."""


class StopForward(BaseException):
    """Ends a forward pass early: raise an instance in a hook, and catch that very instance.

    Not an ``Exception``, so that an ``except Exception`` in the network does not swallow it.
    """


_running = threading.local()


@contextmanager
def aside() -> Iterator[None]:
    """Run a network for a purpose of one's own, perhaps in the middle of another run of it.

    Functions that :func:`hooked` calls for runs outside are not called for runs inside.
    """
    _running.depth = _depth() + 1
    try:
        yield
    finally:
        _running.depth -= 1


def _depth() -> int:
    depth: int = getattr(_running, "depth", 0)
    return depth


class Recorder(Protocol):
    """Traces a network: hooks do not fire on the symbolic values of what it records as a whole."""

    recording: bool
    """False while the recorder itself runs layers, on real values."""

    def hooked(self, layers: Mapping[str, nn.Module], after: After) -> AbstractContextManager[None]:
        """Call ``after`` when a layer is recorded."""


@contextmanager
def recorded_by(recorder: Recorder) -> Iterator[None]:
    """Let a recorder call what :func:`hooked` registers, in this thread."""
    _running.recorder = recorder
    try:
        yield
    finally:
        _running.recorder = None


@contextmanager
def hooked(
    layers: Mapping[str, nn.Module], *, before: Before | None = None, after: After | None = None
) -> Iterator[None]:
    """Call functions before and after layers run, for as long as the context is open.

    Args:
        layers: modules by the name that the functions receive; TorchScript has no such hooks.
        before: see :data:`Before`.
        after: see :data:`After`.
    """
    recorder: Recorder | None = getattr(_running, "recorder", None)
    if recorder is not None and recorder.recording and after is not None and before is None:
        with recorder.hooked(layers, after):
            yield
        return
    layers = {n: m for n, m in layers.items() if not isinstance(m, torch.jit.ScriptModule)}
    depth = _depth()

    def concerned() -> bool:
        # The compiler takes the hooks into its graph, where the depth of a thread has no place.
        return torch.compiler.is_compiling() or _depth() == depth

    def enter(name: str) -> Callable[..., None]:
        def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            if before is not None and concerned():
                before(name, args, kwargs)

        return hook

    def leave(name: str) -> Callable[..., Any]:
        def hook(_module: nn.Module, _args: Any, output: Any) -> Any:
            if after is not None and concerned():
                return after(name, output)
            return None

        return hook

    with ExitStack() as handles:
        for name, layer in layers.items():
            if before is not None:
                handles.enter_context(
                    layer.register_forward_pre_hook(enter(name), with_kwargs=True)
                )
            if after is not None:
                handles.enter_context(layer.register_forward_hook(leave(name)))
        yield


_eager_lock = threading.Lock()
_eager: list[Any] = []  # one entry for each network with compiled parts that runs; the first is set


@contextmanager
def as_written(module: nn.Module) -> Iterator[None]:
    """Run a network with compiled parts as it is written: compiled code does not call our hooks.

    Networks without compiled parts are not concerned, nor is ``torch.compile`` around a run.
    """
    compiled = any(
        "_orig_mod" in part._modules or part.__dict__.get("_compiled_call_impl") is not None
        for part in module.modules()
    )
    if not compiled or torch.compiler.is_compiling() or not hasattr(torch.compiler, "set_stance"):
        yield
        return
    with _eager_lock:
        if not _eager:
            _eager.append(torch.compiler.set_stance("force_eager"))
        _eager.append(None)
    try:
        yield
    finally:
        with _eager_lock:
            _eager.pop()
            if len(_eager) == 1:
                _eager.pop().__exit__(None, None, None)


def find_layer(module: nn.Module, layer: str) -> nn.Module:
    """Return the submodule named ``layer``.

    Raises:
        BackboneError: there is none; with the nearest names.
    """
    scripted = isinstance(module, torch.jit.ScriptModule)  # has no get_submodule
    try:
        found = module.get_submodule(layer) if layer and not scripted else None
    except AttributeError:
        found = None
    if scripted and layer:
        found = dict(module.named_modules()).get(layer)
    if found is None:
        names = [name for name, _ in module.named_modules() if name]
        near = nearest(layer, names, 5) or names[:5]
        raise BackboneError(
            f"there is no layer '{layer}' in {type(module).__name__}",
            hint="the nearest names are " + ", ".join(near) if near else "omit layer",
        )
    if isinstance(found, torch.jit.ScriptModule):
        raise BackboneError(
            f"layer '{layer}' is TorchScript, whose layers cannot be read",
            hint="omit layer, or load the network as Python code",
        )
    return found


def capture(
    module: nn.Module,
    layers: Collection[str | None],
    read: Callable[[str | None, Tensor], T],
    *args: Any,
    **kwargs: Any,
) -> dict[str | None, T]:
    """Run a network until all ``layers`` have put out their result, and read each of them.

    Nothing behind the last of them runs, so weights that are missing there do no harm. Modes and
    autograd are the caller's. Several threads may run one network at the same time: each reads,
    and stops, its own pass only.

    Args:
        module: any module.
        layers: names of submodules, as ``named_modules`` yields them; None is the whole module.
        read: called as ``read(layer, output)`` the moment a layer has finished, before a later
            in-place operation can overwrite its output.
        args, kwargs: what the network takes.

    Returns:
        What ``read`` returned, by layer.

    Raises:
        BackboneError: a layer does not exist, did not run in this forward pass, or its output is
            no tensor.
    """
    found: dict[str | None, T] = {}
    wanted = set(layers)
    thread = threading.get_ident()
    done = StopForward()

    def after(name: str, output: Any) -> None:
        if threading.get_ident() != thread or name in found:
            return
        found[name] = read(name, first_tensor(output, f"layer '{name}'"))
        if len(found) == len(wanted):
            raise done

    hooks = hooked({n: find_layer(module, n) for n in wanted if n is not None}, after=after)
    with as_written(module), hooks:
        try:
            output = module(*args, **kwargs)
        except StopForward as stop:
            if stop is not done:
                raise
            # The traceback holds every frame of the pass, and with them its activations; `done` is
            # a variable of one of these frames, so they would live until the next collection.
            done.__traceback__ = None
        else:
            if None in wanted:
                found[None] = read(None, first_tensor(output, type(module).__name__))
    silent = sorted(str(layer) for layer in wanted - found.keys())
    if silent:
        inlined = isinstance(module, fx.GraphModule)
        raise BackboneError(
            f"layer {', '.join(silent)} did not run in the forward pass of {type(module).__name__}",
            hint="an exported program has no layers to read: omit layer"
            if inlined
            else "choose a layer that runs",
        )
    return found


def run_up_to(module: nn.Module, layer: str | None, *args: Any, **kwargs: Any) -> None:
    """Run a network up to a layer, for what its modules do on the way; see :func:`capture`."""
    capture(module, [layer], lambda _layer, _output: None, *args, **kwargs)


@contextmanager
def compilable(
    module: nn.Module,
    layers: Collection[str | None],
    read: Callable[[str | None, Tensor], T],
) -> Iterator[Callable[..., dict[str | None, T]]]:
    """Open a function that does what :func:`capture` does, and that ``torch.compile`` can take.

    Stopping early would break the compiled graph. Here the whole forward pass runs, but only what
    was read is returned: the compiler drops what that does not depend on, so that nothing behind
    the last layer is computed. For one thread at a time.

    Yields:
        A function from the network's arguments to what ``read`` returned, by layer.
    """
    found: dict[str | None, T] = {}
    names = [layer for layer in layers if layer is not None]

    def after(name: str, output: Any) -> None:
        found[name] = read(name, first_tensor(output, f"layer '{name}'"))

    def run(*args: Any, **kwargs: Any) -> dict[str | None, T]:
        found.clear()
        output = module(*args, **kwargs)
        if None in layers:
            found[None] = read(None, first_tensor(output, type(module).__name__))
        return dict(found)

    with hooked({name: find_layer(module, name) for name in names}, after=after):
        yield run


def first_tensor(output: Any, who: str) -> Tensor:
    """Return the tensor of an output: itself, or the first of a tuple, list or mapping.

    While a network is traced, that is the symbol of a tensor.

    Raises:
        BackboneError: there is none, or its numbers are complex or sparse.
    """
    returned = f"a {type(output).__name__}"
    if isinstance(output, tuple | list) and output:
        output = output[0]
        returned += f" whose first value is a {type(output).__name__}"
    elif isinstance(output, Mapping) and output:  # as transformers' models return it
        key, output = next(iter(output.items()))
        returned += f" whose first value, {key!r}, is a {type(output).__name__}"
    if not isinstance(output, Tensor | fx.Proxy):
        raise BackboneError(
            f"{who} returns {returned}, expected a tensor",
            hint="choose a layer that returns a tensor, or put the network into a module whose"
            " forward returns the one that is the feature",
        )
    if isinstance(output, Tensor) and output.is_complex():
        raise BackboneError(
            f"{who} returns complex numbers, and features are real",
            hint="return their magnitude, x.abs(), or both parts, torch.view_as_real(x)",
        )
    if isinstance(output, Tensor) and output.layout != torch.strided:
        raise BackboneError(
            f"{who} returns a sparse tensor, and features are dense",
            hint="return x.to_dense()",
        )
    return cast(Tensor, output)


def named_tensors_of(output: Any) -> tuple[tuple[str, Tensor], ...]:
    """Return the tensors side by side in an output, by their key or place: ``"aux"``, ``"0"``.

    One that is a tensor itself, or holds nothing side by side, has none.
    """
    if isinstance(output, Mapping):
        pairs = [(f"'{key}'", value) for key, value in output.items()]
    elif isinstance(output, tuple | list):
        names = getattr(output, "_fields", range(len(output)))
        pairs = [
            (f"'{n}'" if isinstance(n, str) else str(n), v)
            for n, v in zip(names, output, strict=True)
        ]
    else:
        pairs = []
    return tuple((name, value) for name, value in pairs if isinstance(value, Tensor))


__all__ = [
    "Recorder",
    "StopForward",
    "as_written",
    "aside",
    "capture",
    "compilable",
    "find_layer",
    "first_tensor",
    "hooked",
    "named_tensors_of",
    "recorded_by",
    "run_up_to",
]
