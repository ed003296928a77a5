"""A backbone: a network with its inputs, and the layer that features are taken from."""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from headstart.backbones.family import NOTHING_STATED, About
from headstart.backbones.passes import features_of
from headstart.core.arguments import Arguments
from headstart.core.cards import Card, Shown
from headstart.core.errors import BackboneError
from headstart.core.fingerprints import fingerprint
from headstart.data.inputs import Inputs
from headstart.modules.digests import digest
from headstart.modules.forward import aside, find_layer, run_up_to
from headstart.modules.identity import describe_structure
from headstart.modules.layers import LiveParts, call_order, item_shapes, live_parts
from headstart.modules.layout import Layout, find_layout
from headstart.modules.modes import evaluation_mode
from headstart.modules.pooling import Pooling, check_pooling, pool
from headstart.modules.values import compiled_away


class _Layouts(dict[tuple[str | None, Hashable], tuple["weakref.ref[nn.Module]", Layout]]):
    """What was found for the layers of a network in this process: a copy begins empty."""

    def __reduce__(self) -> tuple[type[_Layouts], tuple[()]]:
        return _Layouts, ()


@dataclass(frozen=True)
class Known:
    """What an earlier run found out about a backbone, so that its network is built when it runs.

    Attributes:
        identity: what :meth:`Backbone.identity` returns.
        shape: of one row.
        layout: of the layer's output.
        build: builds the same backbone, without running the probe.
    """

    identity: Mapping[str, Any]
    shape: tuple[int, ...]
    layout: Layout
    build: Callable[[], Backbone]


@dataclass(frozen=True)
class Layer:
    """A layer that features can be taken from.

    Attributes:
        name: of the submodule, as ``layer`` takes it.
        shape: of its output for one item, without the batch dimension.
    """

    name: str
    shape: tuple[int, ...]


@dataclass(frozen=True, eq=False, repr=False)
class Backbone(Shown):
    """A pre-trained network that turns items into features.

    Attributes:
        name: the source that it was loaded from ("timm/resnet18.a1_in1k").
        module: the network; extraction runs it in evaluation mode, whatever mode it is in.
        inputs: from the content of an item to the arguments that the weights expect.
        layer: the submodule whose output is the feature, or None for the output of the network.
        pooling: how that output becomes one row an item.
        claimed: what the family says are the names of the main blocks, in forward order; not all
            may exist, or run. See :attr:`blocks`.
        origin: plain values that say where architecture and weights come from, for records.
        notes: what was decided on the user's behalf, one sentence each.
        about: what is stated of the weights: licence, origin, data.
    """

    name: str
    module: nn.Module
    inputs: Inputs
    layer: str | None = None
    pooling: Pooling = "none"
    claimed: tuple[str, ...] = ()
    origin: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    about: About = NOTHING_STATED
    _layouts: _Layouts = field(default_factory=_Layouts, repr=False)  # shared by cuts
    _known: Known | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        check_pooling(self.pooling)
        if self.layer is not None:
            find_layer(self.module, self.layer)

    @classmethod
    def recalled(cls, known: Known, **values: Any) -> Backbone:
        """Return a backbone whose network is built when something asks for it.

        Args:
            known: what an earlier run found out about it.
            **values: of the fields, all but ``module``.
        """
        lacking = {each.name for each in dataclasses.fields(cls) if each.init} - set(values)
        if lacking != {"module", "_layouts"}:
            raise ValueError(f"a recalled backbone lacks {sorted(lacking)}")
        made = object.__new__(cls)
        for name, value in {**values, "_layouts": _Layouts(), "_known": known}.items():
            object.__setattr__(made, name, value)
        return made

    if not TYPE_CHECKING:  # which would find any attribute

        def __getattr__(self, name: str) -> Any:
            """Build the network of a recalled backbone at its first use."""
            known = self.__dict__.get("_known")
            if name != "module" or known is None:
                raise AttributeError(f"a Backbone has no attribute '{name}'", name=name, obj=self)
            built = known.build()
            if built.origin != self.origin:
                raise BackboneError(
                    f"the weights of {self.name} have changed since this run began",
                    hint="run it again",
                )
            object.__setattr__(self, "module", built.module)
            key = (self.layer, self.inputs.decoding)
            self._layouts[key] = (weakref.ref(self.module), known.layout)
            return self.module

    @property
    def _recalled(self) -> Known | None:
        """What is known of a network that has not been built, and so has not been changed."""
        return None if "module" in self.__dict__ else self._known

    def at(self, layer: str | None, pooling: Pooling | None = None) -> Backbone:
        """Return the same network with features from another layer.

        Args:
            layer: name of a submodule; None for the output of the network.
            pooling: None means ``avg`` at a layer and ``none`` at the output.
        """
        chosen: Pooling = pooling or ("none" if layer is None else "avg")
        return dataclasses.replace(self, layer=layer, pooling=chosen)

    def around(self, module: nn.Module) -> Backbone:
        """Return the same inputs and the same cut around a copy of the network."""
        layouts = _Layouts()
        layouts[self.layer, self.inputs.decoding] = (weakref.ref(module), self.layout)
        return dataclasses.replace(self, module=module, _layouts=layouts)

    def deepest(self, layers: Iterable[str | None]) -> str | None:
        """Return the layer that finishes last; None, the output, where one of them does not run.

        Raises:
            BackboneError: a layer does not exist.
        """
        named = [self.at(layer).layer for layer in layers]
        order = [name for name, _, _ in self.call_order()]
        if not set(named) <= set(order):
            return None
        return max(named, key=lambda layer: order.index(str(layer)))

    def features(self, inputs: Arguments) -> Tensor:
        """Run the network up to the layer, and pool its output.

        Args:
            inputs: of ``n`` items, on the module's device.

        Returns:
            ``(n, d)``, or ``(n, ...)`` with pooling ``none``. Modes and autograd are the caller's.
        """
        return features_of([self], inputs)[0]

    def pool(self, output: Tensor, mask: Tensor | None = None) -> Tensor:
        """Pool the raw output of the layer; see :func:`headstart.modules.pooling.pool`.

        Returns:
            ``(n, d)``, or ``(n, ...)`` with pooling ``none``; half precision becomes float32. The
            memory is its own: a later in-place layer may overwrite ``output``.
        """
        # Sums of many half-precision numbers lose digits that the stored row has room for.
        half = output.dtype in {torch.float16, torch.bfloat16}
        whole = output.float() if half else output
        layout = self.layout
        if mask is not None and len(layout.positions) == layout.rows == 1:
            mask = self._with_prefix(mask, output.shape[layout.positions[0]])
        # A mask is about the positions of the input; a layer may have others.
        applies = (
            mask is not None
            and len(layout.positions) == 1
            and not layout.strided
            and len(mask) * layout.rows == output.shape[layout.batch]
            and mask.shape[1] == layout.rows * output.shape[layout.positions[0]]
        )
        return pool(whole, self.pooling, layout, mask if applies else None).clone()

    def _with_prefix(self, mask: Tensor, positions: int) -> Tensor:
        """Return the mask of a layer that has class and register tokens before the input's."""
        more = positions - mask.shape[1]
        if not more or more != getattr(self.module, "num_prefix_tokens", 0):
            return mask
        return torch.cat([mask.new_ones((len(mask), more)), mask], dim=1)

    @property
    def layout(self) -> Layout:
        """Which axis of the layer's output is which, found once by running the probe.

        Raises:
            BackboneError: see :func:`headstart.modules.layout.find_layout`.
        """
        if self.layer is None and self.pooling == "none":
            return Layout()  # the output of the network is the row
        key = (self.layer, self.inputs.decoding)
        known = self._layouts.get(key)
        if known is None or known[0]() is not self.module:
            found = find_layout(self.module, self.layer, self.probe(3))
            known = self._layouts[key] = (weakref.ref(self.module), found)
        return known[1]

    def probe(self, count: int = 2) -> Arguments:
        """Return plausible arguments of ``count`` items, always the same, on the device."""
        return self.inputs.example(count).to(self.device)

    @property
    def device(self) -> torch.device:
        """The device of the first parameter or buffer; the CPU for a module without any."""
        for tensor in (*self.module.parameters(), *self.module.buffers()):
            return tensor.device
        return torch.device("cpu")

    @cached_property
    def live(self) -> LiveParts:
        """The modules and tensors that take part up to the layer."""
        probe = self.probe()
        return live_parts(self.module, self.layer, *probe.args, **probe.kwargs)

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Every submodule that runs exactly once and gives rows of items, as they finish."""
        probe = self.probe(3)
        shapes = item_shapes(self.module, probe[:2], probe)
        return tuple(Layer(name, shape) for name, shape in shapes.items())

    @cached_property
    def blocks(self) -> tuple[str, ...]:
        """Names of the main blocks in forward order, for listings; all of them run.

        They are those that the family names, or else the outermost modules that run. Features can
        be taken from any submodule.
        """
        running = [layer.name for layer in self.layers]
        named = tuple(name for name in dict.fromkeys(self.claimed) if name in running)
        return named or tuple(sorted(_outermost(self.module, "", set(running)), key=running.index))

    def call_order(self) -> tuple[tuple[str, int, tuple[int, ...]], ...]:
        """Run the probe and list the layers as they finish: name, number of runs, shape."""
        probe = self.probe()
        return call_order(self.module, *probe.args, **probe.kwargs)

    def check_layer(self) -> None:
        """Refuse a layer that runs several times: which of its outputs would be meant?"""
        if self.layer is None:
            return
        runs = {name: count for name, count, _ in self.call_order()}
        if runs.get(self.layer, 0) > 1:
            raise BackboneError(
                f"layer '{self.layer}' runs {runs[self.layer]} times in one forward pass",
                hint="choose a layer that runs once",
            )

    def identity(self) -> dict[str, Any]:
        """Describe the function from the network's arguments to features, for cache keys.

        Weights and buffers enter by content digest, but only those up to the layer: another head,
        or other blocks behind the layer, find the same rows.

        Raises:
            BackboneError: part of the module has no plain description.
        """
        if self._recalled is not None:
            return dict(self._recalled.identity)
        tensors = {
            **dict(self.module.named_parameters(remove_duplicate=False)),
            **dict(self.module.named_buffers(remove_duplicate=False)),
        }
        lines = sorted(
            f"{compiled_away(name)} {digest(tensors[name])}" for name in self.live.tensors
        )
        probe = self.probe(3)
        runs = tuple(partial(self._run, some) for some in (probe[:2], probe[1:]))
        return {
            **describe_structure(self.module, self.live.modules, runs),
            "weights": fingerprint("\n".join(lines)),
            "layer": None if self.layer is None else compiled_away(self.layer),
            "pooling": self.pooling,
            **self._pooled(),
        }

    def _run(self, inputs: Arguments) -> None:
        with evaluation_mode(self.module), aside():
            run_up_to(self.module, self.layer, *inputs.args, **inputs.kwargs)

    def _pooled(self) -> dict[str, Any]:
        """Describe how the output becomes rows, beyond the name of the pooling."""
        layout = self.layout
        if self.pooling == "none":
            layout = Layout(layout.batch, rows=layout.rows, strided=layout.strided)
        return {} if layout == Layout() else {"layout": layout.describe()}

    def feature_shape(self) -> tuple[int, ...]:
        """Return the shape of one row, by running the probe."""
        if self._recalled is not None:
            return self._recalled.shape
        with torch.no_grad(), evaluation_mode(self.module):
            return tuple(self.features(self.probe()).shape[1:])

    def card(self) -> Card:
        """Return what there is to see; a network that is not built yet stays so."""
        known, built = self._recalled, "module" in self.__dict__
        facts: list[tuple[str, str | int | None]] = [("takes", self.inputs.extent)]
        if self.layer is not None:
            facts.append(("layer", self.layer))
        if self.pooling != "none":
            facts.append(("pooling", self.pooling))
        if known is not None:
            facts.append(("a row", " × ".join(map(str, known.shape)) + " features"))
        if built:
            facts.append(("parameters", sum(each.numel() for each in self.module.parameters())))
        return Card("Backbone", self.name, tuple(facts), (), self.notes)

    def parameter_count(self) -> int:
        """Return the number of parameters up to the layer."""
        parameters = dict(self.module.named_parameters(remove_duplicate=False))
        return sum(
            math.prod(parameters[name].shape) for name in self.live.tensors if name in parameters
        )


def _outermost(module: nn.Module, prefix: str, running: set[str]) -> Iterator[str]:
    """Yield the outermost modules with parameters that run; one around all others is opened."""
    children = [
        (f"{prefix}{name}", child)
        for name, child in module.named_children()
        if any(True for _ in child.parameters())
    ]
    alone = sum(name in running for name, _ in children) == 1
    for name, child in children:
        if name in running and not alone:
            yield name
            continue
        inside = list(_outermost(child, f"{name}.", running))
        yield from inside or ([name] if name in running else [])
