"""Layers that write to their state as they run: frozen, they are held, or verification says so."""

from __future__ import annotations

import copy
import pickle
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.ao import quantization as quant
from torch.nn.utils import parametrizations

from headstart import fit
from headstart.backbones import load_backbone
from headstart.core.errors import FreezeError
from headstart.core.progress import SilentReporter
from headstart.freezing import (
    FreezeHandle,
    FreezePolicy,
    compare_digests,
    digests,
    freeze,
    plan_freeze,
)
from headstart.modules.modes import evaluation_mode
from tests.freezing.models import CHANCES, CONSTANT_NORMS, NORMS

INDICES = torch.tensor([[0, 1, 2], [5, 1, 7]])
NUMBERS = torch.linspace(-3, 9, 24).reshape(2, 3, 4)


class Own(nn.Embedding):
    """An embedding with a forward of its own."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * 2


def large(layer: nn.Module) -> nn.Module:
    """Give it rows that are too long, from the same numbers each time."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(0)
        for parameter in layer.parameters():
            parameter.copy_(5 * torch.randn(parameter.shape, generator=generator))
    return layer


def observed(layer: nn.Module) -> nn.Module:
    layer(NUMBERS)
    return layer


def qat_linear() -> nn.Module:
    layer = torch.ao.nn.qat.Linear(4, 2, qconfig=quant.get_default_qat_qconfig("x86"))
    layer.activation_post_process = layer.qconfig.activation()  # as prepare_qat adds it
    layer.register_forward_hook(lambda module, _, output: module.activation_post_process(output))
    return layer


def per_channel() -> nn.Module:
    observer = quant.MovingAveragePerChannelMinMaxObserver
    return observed(quant.FakeQuantize(observer, -128, 127, dtype=torch.qint8, ch_axis=1))


# What writes in every pass, with an input that makes it write.
WRITERS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "Embedding": (lambda: large(nn.Embedding(9, 4, max_norm=1.0)), (INDICES,)),
    "Embedding-norm-1": (
        lambda: large(nn.Embedding(9, 4, max_norm=2.0, norm_type=1.0)), (INDICES,),
    ),
    "Embedding-padding": (
        lambda: large(nn.Embedding(9, 4, padding_idx=1, max_norm=1.0)), (INDICES,),
    ),
    "Embedding-sparse": (
        lambda: large(nn.Embedding(9, 4, max_norm=1.0, sparse=True, scale_grad_by_freq=True)),
        (INDICES,),
    ),
    "Embedding-int32": (lambda: large(nn.Embedding(9, 4, max_norm=1.0)), (INDICES.int(),)),
    "Embedding-of-ones-own": (lambda: large(Own(9, 4, max_norm=1.0)), (INDICES,)),
    "Embedding-pretrained": (
        lambda: nn.Embedding.from_pretrained(torch.ones(9, 4), freeze=False, max_norm=1.0),
        (INDICES,),
    ),
    **{
        f"EmbeddingBag-{mode}": (
            lambda mode=mode: large(nn.EmbeddingBag(9, 4, max_norm=1.0, mode=mode)), (INDICES,),
        )
        for mode in ("sum", "mean", "max")
    },
    "EmbeddingBag-offsets": (
        lambda: large(nn.EmbeddingBag(9, 4, max_norm=1.0, padding_idx=5)),
        (INDICES.flatten(), torch.tensor([0, 2])),
    ),
    "EmbeddingBag-weighted": (
        lambda: large(nn.EmbeddingBag(9, 4, max_norm=1.0, mode="sum", include_last_offset=True)),
        (INDICES.flatten(), torch.tensor([0, 4, 6]), torch.rand(6)),
    ),
    **{
        name: (getattr(quant, name), (NUMBERS,))
        for name in (
            "MinMaxObserver",
            "MovingAverageMinMaxObserver",
            "PerChannelMinMaxObserver",
            "HistogramObserver",
        )
    },
    "FakeQuantize": (lambda: observed(quant.FakeQuantize()), (NUMBERS * 7,)),
    "FakeQuantize-channels": (per_channel, (NUMBERS * 7,)),
    "FusedMovingAvgObsFakeQuantize": (
        lambda: observed(quant.FusedMovingAvgObsFakeQuantize()), (NUMBERS * 7,),
    ),
    "QAT-linear": (
        lambda: observed(qat_linear()), (NUMBERS * 7,),
    ),
}  # fmt: skip
POLICIES = {
    "frozen": FreezePolicy(),
    "features": FreezePolicy(autograd="inference"),
    "no_grad": FreezePolicy(autograd="no_grad"),
    "stochastic": FreezePolicy(stochastic="on"),
    "norm-only": FreezePolicy("frozen", "batch", True, "off", affine="trainable"),
}


def run(layer: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """Runs in both modes, as a trainer does."""
    for mode in (True, False, True):
        layer.train(mode)
        layer(*inputs)


pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.mark.parametrize("name", WRITERS)
def test_it_does_write_without_a_contract(name: str) -> None:
    make, inputs = WRITERS[name]
    layer = make().eval()
    before = digests(layer)
    with torch.no_grad():
        layer(*inputs)
    assert compare_digests(before, digests(layer)) != ()


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", WRITERS)
def test_frozen_it_is_held(name: str, policy: str) -> None:
    make, inputs = WRITERS[name]
    layer = make()
    handle = freeze(layer, POLICIES[policy])
    before = digests(layer)
    run(layer, inputs)
    assert compare_digests(before, digests(layer)) == ()
    handle.verify()
    assert any("in every pass; frozen" in note for note in handle.plan.notes)


@pytest.mark.parametrize("name", [n for n in WRITERS if n.startswith("Embedding")])
def test_what_a_held_embedding_returns_has_the_bits_of_its_own(name: str) -> None:
    make, inputs = WRITERS[name]
    expected = make()(*inputs)
    layer = make()
    freeze(layer)
    torch.testing.assert_close(layer(*inputs), expected.detach(), rtol=0, atol=0)
    torch.testing.assert_close(layer(*inputs), expected.detach(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["FakeQuantize", "FusedMovingAvgObsFakeQuantize"])
def test_a_held_quantizer_keeps_its_scale(name: str) -> None:
    make, inputs = WRITERS[name]
    layer, own = make(), make()
    freeze(layer)
    own.disable_observer()
    assert torch.equal(layer(*inputs), own(*inputs))


@pytest.mark.parametrize("name", WRITERS)
def test_release_gives_the_layer_back(name: str) -> None:
    make, inputs = WRITERS[name]
    layer = make()
    freeze(layer, POLICIES["features"]).release()
    before = digests(layer)
    with torch.no_grad():
        layer(*inputs)
    assert compare_digests(before, digests(layer)) != ()
    assert "forward" not in vars(layer)


@pytest.mark.parametrize("name", WRITERS)
def test_copies_are_held_too(name: str) -> None:
    make, inputs = WRITERS[name]
    layer = make()
    freeze(layer)
    copies = [copy.deepcopy(layer), copy.deepcopy(copy.deepcopy(layer))]
    if not layer._forward_hooks:
        copies.append(pickle.loads(pickle.dumps(layer)))
    for each in copies:
        run(each, inputs)
        FreezeHandle.of(each).verify()


@pytest.mark.parametrize("name", WRITERS)
def test_evaluation_mode_holds_it_too(name: str) -> None:
    """Extraction leaves weights as they came: rows are known by them."""
    make, inputs = WRITERS[name]
    layer = make()
    before, kept = digests(layer), dict(vars(layer))
    with evaluation_mode(layer), torch.no_grad():
        out = layer(*inputs)
        torch.testing.assert_close(layer(*inputs), out, rtol=0, atol=0)
    assert compare_digests(before, digests(layer)) == ()
    assert vars(layer).keys() == kept.keys()


def test_what_trains_gets_its_gradient_in_evaluation_mode() -> None:
    layer = large(nn.Embedding(9, 4, max_norm=1.0))
    with evaluation_mode(layer):
        layer(INDICES).sum().backward()
    assert layer.weight.grad is not None


class Palette(nn.Module):
    """Looks grey levels up in a table that ``max_norm`` shortens."""

    def __init__(self) -> None:
        super().__init__()
        self.table = large(nn.Embedding(256, 8, max_norm=1.0))

    def forward(self, x: Tensor) -> Tensor:
        levels = (x.mean(1) * 60 + 128).long().clamp(0, 255)
        return self.table(levels).flatten(1, 2).mean(1)


def test_fit_finds_its_own_rows_again(tmp_path: Path) -> None:
    """They were lost between the two splits, since the first had moved the weights."""
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (40, 16, 16, 3)).astype(np.uint8), np.arange(40) % 2
    data = {"train": (images[:30], labels[:30]), "test": (images[30:], labels[30:])}
    uses = []
    for _ in range(2):
        run = fit(
            data, load_backbone(Palette(), mean=0.5, std=0.25, size=16), write=False,
            cache=tmp_path, reporter=SilentReporter(),
        )  # fmt: skip
        uses.append((run.cache.hits, run.cache.misses))
    assert uses == [(0, 40), (40, 0)]


def test_a_compiled_one_and_one_that_trains() -> None:
    layer = nn.Sequential(large(nn.Embedding(9, 4, max_norm=1.0)), nn.Linear(4, 2))
    handle = freeze(layer, {"0": "frozen", "1": "trainable"})
    compiled = torch.compile(layer, backend="eager")
    compiled(INDICES).sum().backward()
    handle.verify()
    before = digests(layer[0])
    freeze(layer, {"": "trainable"})
    layer(INDICES).sum().backward()
    assert compare_digests(before, digests(layer[0])) != ()  # its rows are shortened as ever


SPECTRAL: dict[str, Callable[[], nn.Module]] = {
    "parametrized": lambda: parametrizations.spectral_norm(nn.Linear(4, 4)),
    "hooked": lambda: nn.utils.spectral_norm(nn.Linear(4, 4)),
}


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("name", SPECTRAL)
def test_the_power_iteration_of_a_frozen_spectral_norm_stands_still(name: str, policy: str) -> None:
    layer = SPECTRAL[name]()
    for vector in layer.buffers():
        nn.init.normal_(vector)  # far from where the iteration ends
    free = digests(layer)
    layer.train()(NUMBERS)
    assert compare_digests(free, digests(layer)) != ()
    handle = freeze(layer, POLICIES[policy])
    run(layer, (NUMBERS,))
    handle.verify()


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.utils.weight_norm(nn.Linear(4, 4)),
        lambda: parametrizations.weight_norm(nn.Linear(4, 4)),
        lambda: parametrizations.orthogonal(nn.Linear(4, 4)),
    ],
)
def test_other_reparametrizations_hold_by_themselves(make: Callable[[], nn.Module]) -> None:
    layer = make()
    handle = freeze(layer, FreezePolicy(stochastic="on"))
    run(layer, (NUMBERS,))
    handle.verify()


class Codebook(nn.Module):
    """A vector quantizer whose code moves by an average, in training or always."""

    def __init__(self, always: bool) -> None:
        super().__init__()
        self.always = always
        self.register_buffer("codes", torch.randn(5, 4))

    def forward(self, x: Tensor) -> Tensor:
        nearest = torch.cdist(x.flatten(0, -2), self.codes).argmin(1)
        if self.training or self.always:
            with torch.no_grad():
                self.codes[nearest] = 0.9 * self.codes[nearest] + 0.1 * x.flatten(0, -2)
        return self.codes[nearest].reshape(x.shape)


class Projected(nn.Module):
    """Writes to its parameter behind autograd's back."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = self.weight.data / self.weight.data.norm()
        return x @ self.weight


class Table(nn.Module):
    """A table of one's own that ``max_norm`` renormalises."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(5 * torch.randn(9, 4))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            rows = nn.functional.embedding(x.abs().long() % 9, self.weight, max_norm=1.0)
        return rows


class Late(nn.Module):
    """Makes its state in its first pass."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        if kind == "buffer":
            self.register_buffer("state", None)
        else:
            self.register_parameter("state", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.state is None:
            first = x.detach().mean(0)
            self.state = nn.Parameter(first) if self.kind == "parameter" else first
        return x - self.state


class Ranged(nn.Module):
    """A cache that grows with its input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("positions", None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.positions = torch.arange(x.shape[-1])
        return x + self.positions


def test_what_is_held_by_its_mode_is_held() -> None:
    layer = Codebook(always=False)
    handle = freeze(layer)
    run(layer, (NUMBERS,))
    handle.verify()


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Codebook(always=True), "codes"),
        (Projected, "weight"),
        (Table, "weight"),
        (lambda: Late("buffer"), "'0.state' appeared after the freeze"),
        (lambda: Late("parameter"), "'0.state' appeared after the freeze"),
    ],
    ids=["codebook", "data", "table", "late buffer", "late parameter"],
)
def test_what_nobody_knows_is_named(make: Callable[[], nn.Module], named: str) -> None:
    net = nn.Sequential(make(), nn.Linear(4, 4))
    handle = freeze(net, {"0": "frozen", "1": "trainable"})
    net.eval()
    net[0](NUMBERS)
    with pytest.raises(FreezeError, match=named):
        handle.verify()


def test_a_cache_is_no_state() -> None:
    layer = Ranged()
    handle = freeze(nn.Sequential(layer, nn.Linear(4, 4)))
    layer(NUMBERS)
    handle.verify()


def test_a_range_that_was_never_observed_is_refused() -> None:
    for make in (qat_linear, quant.FakeQuantize):
        with pytest.raises(FreezeError, match="have not observed yet: run some batches"):
            freeze(make())
        freeze(make(), "trainable")


def test_lazy_modules_are_refused_until_they_have_run() -> None:
    for make in (lambda: nn.LazyLinear(3), lambda: nn.LazyBatchNorm1d(affine=False)):
        with pytest.raises(FreezeError, match="are lazy: run one batch"):
            freeze(make())


@pytest.mark.parametrize("name", {**NORMS, **CONSTANT_NORMS, **CHANCES})
def test_every_norm_without_affine_and_every_chance_writes_nothing(name: str) -> None:
    layer = {**NORMS, **CONSTANT_NORMS, **CHANCES}[name]()
    handle = freeze(layer)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        run(layer, (torch.randn(2, 4, 6, 6),))
    handle.verify()


@pytest.mark.parametrize(
    "norm",
    [
        lambda: nn.BatchNorm1d(3, affine=False),
        lambda: nn.BatchNorm1d(3, affine=False, momentum=None),
        lambda: nn.InstanceNorm1d(3, affine=False, track_running_stats=True),
        lambda: nn.SyncBatchNorm(3, affine=False),
    ],
)
def test_norms_without_scales_are_held(norm: Callable[[], nn.Module]) -> None:
    layer = norm()
    handle = freeze(layer)
    run(layer, (NUMBERS,))
    handle.verify()
    assert plan_freeze(layer, "frozen").rows[0].norms == "1 running, fixed"
