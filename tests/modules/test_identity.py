"""Whatever changes what a network computes changes its description, and nothing else does."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize, prune

from headstart.backbones import Backbone, load_backbone
from headstart.core.errors import BackboneError
from headstart.data import Preprocessing
from headstart.freezing import freeze
from headstart.prefix import Cut, find_cut

PLAN = Preprocessing(size=(32, 32), mean=(0, 0, 0), std=(1, 1, 1))
SCALE = 1.0
LAYER = "layer2"


def network() -> nn.Module:
    torch.manual_seed(0)
    return timm.create_model("resnet10t", num_classes=0, zero_init_last=False).eval()


def identity(module: nn.Module, layer: str | None = LAYER) -> dict[str, Any]:
    return load_backbone(module, inputs=PLAN, layer=layer).identity()


def rows(module: nn.Module, layer: str | None = LAYER) -> Tensor:
    backbone = load_backbone(module, inputs=PLAN, layer=layer)
    with torch.no_grad():
        return backbone.features(backbone.probe(2))


class Scaled(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


class Doubler:
    def __init__(self, factor: float) -> None:
        self.factor = factor

    def __call__(self, _module: nn.Module, _args: Any, output: Tensor) -> Tensor:
        return output * self.factor


def by_constant(net: nn.Module) -> None:
    net.layer1.register_forward_hook(lambda _m, _a, output: output * 2)


def by_closure(net: nn.Module, factor: float = 2.0) -> None:
    net.layer1.register_forward_hook(lambda _m, _a, output: output * factor)


def by_tensor(net: nn.Module, factor: float = 2.0) -> None:
    scale = torch.tensor(factor)
    net.layer1.register_forward_hook(lambda _m, _a, output: output * scale)


def by_object(net: nn.Module, factor: float = 2.0) -> None:
    net.layer1.register_forward_hook(Doubler(factor))


def by_default(net: nn.Module, factor: float = 2.0) -> None:
    net.layer1.register_forward_hook(lambda _m, _a, output, factor=factor: output * factor)


def by_module(net: nn.Module, factor: float = 2.0) -> None:
    adapter = nn.Conv2d(64, 64, 1, bias=False)
    nn.init.constant_(adapter.weight, factor)
    net.layer1.register_forward_hook(lambda _m, _a, output: adapter(output))


def by_pre_hook(net: nn.Module, factor: float = 2.0) -> None:
    net.layer2.register_forward_pre_hook(lambda _m, args: (args[0] * factor,))


def by_keyword_hook(net: nn.Module, factor: float = 2.0) -> None:
    def hook(_module: nn.Module, _args: Any, _kwargs: Any, output: Tensor) -> Tensor:
        return output * factor

    net.layer1.register_forward_hook(hook, with_kwargs=True)


def by_forward(net: nn.Module, factor: float = 2.0) -> None:
    plain = net.layer1.forward

    def forward(_self: nn.Module, x: Tensor) -> Tensor:
        return plain(x) * factor

    net.layer1.forward = types.MethodType(forward, net.layer1)


def by_parametrization(net: nn.Module, factor: float = 2.0) -> None:
    parametrize.register_parametrization(net.layer1[0].conv1, "weight", Scaled(factor))


def by_old_weight_norm(net: nn.Module) -> None:
    nn.utils.weight_norm(net.layer1[0].conv1)
    net.layer1[0].conv1.weight_g.data.mul_(2)


def by_pruning(net: nn.Module) -> None:
    prune.l1_unstructured(net.layer1[0].conv1, "weight", amount=0.5)


CHANGES: dict[str, Callable[..., None]] = {
    name: value for name, value in list(globals().items()) if name.startswith("by_")
}  # the functions above


@pytest.mark.filterwarnings("ignore:.*weight_norm.*")
@pytest.mark.parametrize("name", CHANGES)
def test_what_changes_the_rows_changes_the_identity(name):
    plain, changed = network(), network()
    before, expected = identity(plain), rows(plain)
    CHANGES[name](changed)
    assert not torch.allclose(rows(changed), expected)
    assert identity(changed) != before
    assert identity(changed) == identity(changed)


@pytest.mark.parametrize(
    "name", [name for name, change in CHANGES.items() if change.__code__.co_argcount == 2]
)
def test_a_factor_in_it_counts(name):
    one, two, same = network(), network(), network()
    for net, factor in ((one, 2.0), (two, 3.0), (same, 2.0)):
        CHANGES[name](net, factor)
    assert identity(one) == identity(same)
    assert identity(one) != identity(two)


def test_hooks_behind_the_layer_do_not_count():
    net = network()
    net.layer4.register_forward_hook(Doubler(2.0))
    assert identity(net) == identity(network())


def test_a_hook_for_every_module_counts():
    net = network()
    before = identity(net)
    handle = nn.modules.module.register_module_forward_hook(lambda _m, _a, out: out * 2)
    try:
        assert identity(net) != before
    finally:
        handle.remove()
    assert identity(net) == before


def watch(_module: nn.Module, _args: Any, output: Tensor) -> None:
    SEEN.append(1)
    if len(SEEN) > 1000:
        raise RuntimeError(f"{output.shape} came {len(SEEN)} times")


SEEN: list[int] = []


class Watcher:
    def __init__(self) -> None:
        self.seen = object()

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> None:
        print(type(self.seen).__name__)


def doubled(output: Tensor) -> Tensor:
    output *= 2
    return output


def by_writing(_module: nn.Module, _args: Any, output: Tensor) -> None:
    output.mul_(2)


def by_writing_elsewhere(_module: nn.Module, _args: Any, output: Tensor) -> None:
    doubled(output)


def by_item(_module: nn.Module, _args: Any, output: Tensor) -> None:
    output[:, 0] = 0


def sometimes(_module: nn.Module, _args: Any, output: Tensor) -> Tensor | None:
    return output.clamp(max=6) if output.max() > 1e6 else None


def test_a_hook_that_only_watches_does_not_count():
    net = network()
    for hook in (watch, Watcher(), Watcher().__call__):
        net.layer1.register_forward_hook(hook)
    assert identity(net) == identity(network())


def test_a_hook_that_collects_does_not_count():
    calls: list[int] = []
    outputs: set[int] = set()
    net = network()
    net.layer1.register_forward_hook(lambda *_: calls.append(1))
    net.layer2.register_forward_hook(lambda _m, _a, out: outputs.add(out.sum().item()))
    net.layer3.register_forward_hook(lambda *_: SEEN.append(1))
    before = identity(net)
    rows(net)
    assert calls
    assert identity(net) == before == identity(network())


def test_what_looks_like_collecting_counts():
    box = torch.zeros(1)  # `add` of a tensor returns another output
    calls: list[int] = []
    for hook in (
        lambda _m, _a, out: box.add(out),
        lambda _m, _a, out: calls.append(1) or out * 2,
        lambda _m, _a, out: calls.append(out.mul_(2)),
    ):
        net = network()
        net.layer1.register_forward_hook(hook)
        assert identity(net) != identity(network())


@pytest.mark.parametrize("hook", [by_writing, by_writing_elsewhere, by_item, sometimes])
def test_a_hook_that_may_write_counts(hook):
    net = network()
    net.layer1.register_forward_hook(hook)
    assert identity(net) != identity(network())


@pytest.mark.parametrize("container", [dict, list])
def test_a_hook_that_records_has_one_identity(container):
    kept: Any = container()

    def record(module: nn.Module, _args: Any, output: Tensor) -> None:
        if isinstance(kept, dict):
            kept["last"] = output
        else:
            kept.append(output)

    net = network()
    net.layer1.register_forward_hook(record)
    before = identity(net)
    rows(net)
    with torch.no_grad():
        net(torch.randn(3, 3, 32, 32))
    assert identity(net) == before


def test_what_a_hook_refers_to_and_cannot_be_described_is_refused():
    net, thing = network(), object()
    net.layer1.register_forward_hook(lambda _m, _a, output: output if thing else None)
    with pytest.raises(BackboneError, match=r"the forward hook of layer1.*object.*cache key"):
        identity(net)


class Keeping(nn.Module):
    """Keeps its last activations, as code that draws attention maps does."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.last, self.calls = nn.Conv2d(3, 4, 3), None, 0

    def forward(self, x: Tensor) -> Tensor:
        self.last = self.conv(x) * SCALE
        self.calls += 1
        return self.last.mean((2, 3))


def test_state_that_every_pass_overwrites_does_not_count():
    torch.manual_seed(0)
    net = Keeping()
    before = identity(net, None)
    net(torch.randn(5, 3, 32, 32))
    net(torch.randn(4, 3, 40, 40))
    assert identity(net, None) == before
    assert net.calls > 0


def test_a_constant_that_own_code_reads_counts(monkeypatch):
    net = Keeping()
    before = identity(net, None)
    monkeypatch.setattr(sys.modules[__name__], "SCALE", 2.0)
    assert identity(net, None) != before


def helper(x: Tensor) -> Tensor:
    return x * SCALE


class Helped(Keeping):
    power = 1.0

    def forward(self, x: Tensor) -> Tensor:
        return helper(super().forward(x)) ** self.power


class Attributed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.LAYER = nn.Conv2d(3, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.LAYER(x).mean((2, 3))


def test_a_global_does_not_count_for_an_attribute_of_its_name(monkeypatch):
    """In a notebook, what ``self.features`` reads is not the variable ``features``."""
    module = Attributed()
    before = identity(module, None)
    monkeypatch.setattr(sys.modules[__name__], "LAYER", "other")
    assert identity(module, None) == before


def test_functions_and_class_attributes_that_own_code_reads_count(monkeypatch):
    net = Helped()
    before = identity(net, None)
    monkeypatch.setattr(Helped, "power", 2.0)
    other = identity(net, None)
    assert other != before
    monkeypatch.setattr(sys.modules[__name__], "helper", lambda x: x + 1)
    assert identity(net, None) != other


def test_methods_that_were_replaced_count(monkeypatch):
    net, own = network(), Keeping()
    before, own_before = identity(net), identity(own, None)
    monkeypatch.setattr(nn.BatchNorm2d, "forward", lambda self, x: x, raising=False)
    assert identity(net) != before
    monkeypatch.setattr(Keeping, "forward", lambda self, x: self.conv(x).mean((2, 3)) * 3)
    assert identity(own, None) != own_before


class Unregistered(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.others = [nn.Conv2d(4, 4, 3)]
        self.table = np.arange(5000.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.others[0](self.conv(x)).mean((2, 3)) * float(self.table[2500])


def test_what_is_not_registered_counts_with_its_content():
    net = Unregistered()
    before = identity(net, None)
    with torch.no_grad():
        net.others[0].weight[0, 0, 0, 0] += 1
    other = identity(net, None)
    assert other != before
    net.table[2500] += 1
    assert identity(net, None) != other


def test_a_parametrized_module_of_ones_own_counts_with_its_code():
    net = nn.Sequential(Keeping(), nn.Linear(4, 3))
    parametrize.register_parametrization(net[0].conv, "weight", Scaled(1.0))
    assert any(name.endswith("Scaled") for name in identity(net, None)["own_code"])


def test_nothing_is_left_behind():
    net = Keeping().train()
    backbone = load_backbone(net, inputs=PLAN)
    calls, state = net.calls, torch.get_rng_state()
    last = net.last
    backbone.live  # noqa: B018 runs the network
    calls, last = net.calls, net.last
    backbone.identity()
    assert (net.calls, net.last, net.training) == (calls, last, True)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_freeze_contract_does_not_count():
    net = network()
    before = identity(net)
    freeze(net)
    assert identity(net) == before


def test_hooks_before_the_cut_of_a_fine_tuning_count():
    stage = {"": "frozen", "layer4": "trainable-fixed-norm"}
    found = []
    for factor in (None, 2.0, 3.0):
        net = network()
        if factor is not None:
            net.layer1[0].conv1.register_forward_hook(Doubler(factor))
        cut = find_cut(net, torch.randn(2, 3, 32, 32), freeze(net, stage), measure=False)
        assert isinstance(cut, Cut), cut
        found.append(cut.describe())
    assert found[0] != found[1] != found[2] != found[0]


def compiled(how: str) -> nn.Module:
    net = network()
    if how == "around":
        return torch.compile(net, backend="eager")
    if how == "in place":
        net.compile(backend="eager")
    if how == "inside":
        net.layer2 = torch.compile(net.layer2, backend="eager")
    if how == "inside, in place":
        net.layer1.compile(backend="eager")
    return net


@pytest.mark.slow
@pytest.mark.parametrize("how", ["around", "in place", "inside", "inside, in place"])
@pytest.mark.parametrize("layer", [LAYER, None])
def test_a_compiled_module_is_the_module_it_was_made_from(how, layer):
    net = compiled(how)
    net(torch.zeros(2, 3, 32, 32))
    stance = torch._dynamo.eval_frame._stance.stance
    assert identity(net, layer) == identity(network(), layer)
    assert torch.equal(rows(net, layer), rows(network(), layer))
    assert torch._dynamo.eval_frame._stance.stance == stance


def test_what_lightning_notes_when_it_compiles_is_no_part_of_a_network():
    """Its import replaces ``torch.compile`` for the process, to keep the arguments of each call."""
    pytest.importorskip("lightning.fabric")
    net = network()
    compiled = torch.compile(net, backend="eager")
    assert vars(net)["_compile_kwargs"] == {"backend": "eager"}
    assert identity(compiled) == identity(net) == identity(network())


@pytest.mark.slow
def test_layers_inside_a_compiled_part_can_be_read():
    net = compiled("inside")
    net(torch.zeros(2, 3, 32, 32))
    assert torch.equal(rows(net, "layer2._orig_mod.0"), rows(network(), "layer2.0"))
    assert identity(net, "layer2._orig_mod.0") == identity(network(), "layer2.0")
    whole = load_backbone(compiled("around"), inputs=PLAN, layer="_orig_mod.layer2")
    assert isinstance(whole, Backbone)
    assert whole.layer == "layer2"
    assert any("runs as written" in note for note in whole.notes)


@pytest.mark.slow
def test_another_process_finds_the_same_identity():
    code = (
        "import json; from tests.modules.test_identity import *\n"
        "nets = [compiled('around'), compiled('in place'), network()]\n"
        "by_closure(nets[2]); by_object(nets[2])\n"
        "print(json.dumps([identity(net) for net in nets]))"
    )
    root = Path(__file__).parents[2]
    results = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=root
        ).stdout.splitlines()[-1]
        for _ in range(2)
    }
    assert len(results) == 1
    assert json.loads(results.pop())[0] == identity(network())


def test_a_copy_with_its_hooks_is_the_same():
    net = network()
    by_object(net)
    assert identity(copy.deepcopy(net)) == identity(net)
