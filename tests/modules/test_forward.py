"""Running a network up to a layer: what runs, what is read, and that nothing is left behind."""

from __future__ import annotations

import dataclasses
import threading
from pathlib import Path

import pytest
import torch
from torch import nn

import headstart
from headstart.core.errors import BackboneError
from headstart.modules.forward import (
    StopForward,
    aside,
    capture,
    compilable,
    first_tensor,
    hooked,
    run_up_to,
)
from headstart.modules.layers import call_order, live_parts


class Net(nn.Module):
    """A pass up to ``act`` must not run ``two``."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(3, 4, 3)
        self.act = nn.ReLU(inplace=True)
        self.two = nn.Conv2d(4, 5, 3)
        self.ran_two = 0
        self.two.register_forward_hook(self._count)

    def _count(self, *_: object) -> None:
        self.ran_two += 1

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.two(self.act(self.one(x)))


def everything(_layer, output):
    return output


@pytest.mark.parametrize("layer", ["one", "act"])
def test_nothing_behind_the_layer_runs(layer):
    net = Net()
    capture(net, [layer], everything, torch.zeros(1, 3, 16, 16))
    run_up_to(net, layer, torch.zeros(1, 3, 16, 16))
    assert net.ran_two == 0


def test_the_whole_network_can_be_read_with_its_layers():
    net, x = Net(), torch.randn(2, 3, 16, 16)
    found = capture(net, [None, "one"], lambda _layer, output: output.clone(), x)
    assert torch.equal(found["one"], net.one(x))
    assert torch.equal(found[None], net(x))


def test_hooks_are_removed_even_after_an_error():
    net = Net()
    with pytest.raises(RuntimeError):
        capture(net, ["one"], everything, torch.zeros(1, 7, 16, 16))
    assert all(not part._forward_hooks for name, part in net.named_modules() if name != "two")


class Careful(nn.Module):
    """Catches what goes wrong inside, as networks with a fallback do."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.other = nn.Linear(2, 2), nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        try:
            x = self.inner(x)
        except Exception:
            pass
        return self.other(x)


def test_a_network_that_catches_exceptions_is_stopped_too():
    net, ran = Careful(), []
    with hooked({"other": net.other}, after=lambda name, _output: ran.append(name)):
        capture(net, ["inner"], everything, torch.zeros(1, 2))
    assert not ran


def test_a_stop_that_comes_from_outside_is_passed_on():
    net, stop = Net(), StopForward()

    def before(_name, _args, _kwargs):
        raise stop

    with hooked({"one": net.one}, before=before), pytest.raises(StopForward) as found:
        run_up_to(net, "act", torch.zeros(1, 3, 16, 16))
    assert found.value is stop


def test_a_run_aside_is_not_seen_by_the_run_around_it():
    net, seen = Net(), []
    x = torch.zeros(1, 3, 16, 16)

    def after(name, _output):
        seen.append(name)
        with aside():
            run_up_to(net, "act", x)

    with hooked({"one": net.one}, after=after):
        run_up_to(net, "act", x)
    assert seen == ["one"]


def test_threads_that_share_a_network_read_and_stop_their_own_pass():
    net = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
    wanted = {str(n): torch.randn(3, 4) for n in range(6)}
    expected = {name: capture(net, [name], everything, x)[name] for name, x in wanted.items()}
    barrier, wrong = threading.Barrier(len(wanted)), []

    def work(name):
        barrier.wait()
        for _ in range(200):
            found = capture(net, [name], everything, wanted[name])
            if found.keys() != {name} or not torch.equal(found[name], expected[name]):
                wrong.append(name)

    threads = [threading.Thread(target=work, args=(name,)) for name in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    assert not any(part._forward_hooks for part in net.modules())


def test_a_layer_that_is_not_there_or_does_not_run_is_refused():
    net = Net()
    net.spare = nn.Linear(2, 2)
    with pytest.raises(BackboneError, match=r"no layer 'ones'.*one"):
        capture(net, ["ones"], everything, torch.zeros(1, 3, 16, 16))
    with pytest.raises(BackboneError, match="spare did not run"):
        capture(net, ["spare"], everything, torch.zeros(1, 3, 16, 16))


def test_the_compilable_form_reads_the_same():
    net, x = Net(), torch.randn(2, 3, 16, 16)
    layers = ["one", "act", None]

    def copied(_layer, output):
        return output.clone()

    expected = capture(net, layers, copied, x)
    with compilable(net, layers, copied) as run:
        for _ in range(2):
            found = run(x)
            assert found.keys() == expected.keys()
            assert all(torch.equal(found[layer], expected[layer]) for layer in layers)
    assert not net.one._forward_hooks


class Attention(nn.Module):
    """MultiheadAttention reads its out_proj without calling it."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, 4, 4)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.tail = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        return self.tail(self.attention(tokens, tokens, tokens)[0].mean(1))


def test_live_parts_have_tensors_that_are_read_without_a_call():
    net = Attention()
    live = live_parts(net, "attention", torch.zeros(2, 3, 16, 16))
    assert "attention.out_proj.weight" in live.tensors
    assert "attention.in_proj_weight" in live.tensors
    assert not any(name.startswith("tail") for name in live.tensors)


def test_layers_are_listed_as_they_finish_with_their_number_of_runs():
    shared = nn.Linear(4, 4)
    net = nn.Sequential(nn.Linear(2, 4), shared, shared)
    assert call_order(net, torch.zeros(3, 2)) == (("0", 1, (4,)), ("1", 2, (4,)))


def test_hooks_are_registered_in_one_place():
    package = Path(headstart.__file__).parent
    found = [
        str(path.relative_to(package))
        for path in package.rglob("*.py")
        if "register_forward" in path.read_text(encoding="utf-8")
    ]
    assert found == ["modules/forward.py"]


@dataclasses.dataclass
class Seen:
    features: torch.Tensor


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (((torch.ones(2), torch.ones(2)), 1), "the layer returns a tuple whose first value is a"),
        ([None, torch.ones(2)], "a list whose first value is a NoneType, expected a tensor"),
        ({"loss": None}, "a dict whose first value, 'loss', is a NoneType, expected a tensor"),
        (Seen(torch.ones(2)), "the layer returns a Seen, expected a tensor"),
        ((), "the layer returns a tuple, expected a tensor"),
    ],
)
def test_an_output_that_is_no_tensor_is_said_as_it_is(output, said):
    with pytest.raises(BackboneError, match="put the network into a module") as caught:
        first_tensor(output, "the layer")
    assert said in str(caught.value)
