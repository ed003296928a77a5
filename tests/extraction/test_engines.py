"""Engines give the rows of the network as it is written, and leave the user's module as it is."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx.experimental.symbolic_shapes import ShapeEnv
from torch.nn import functional as F

from headstart.backbones import Backbone, features_of, load_backbone
from headstart.core.arguments import Arguments
from headstart.core.errors import MissingExtraError
from headstart.data import Preprocessing, load_items
from headstart.extraction import Extraction, Extractor, extract
from headstart.extraction.engines import find_engine
from headstart.extraction.engines.exporting import exported
from headstart.extraction.engines.folding import folded
from headstart.extraction.engines.table import engines
from headstart.extraction.precision import autocast
from headstart.modules.modes import evaluation_mode

CPU = torch.device("cpu")
INPUTS = Preprocessing(size=(64, 64), mean=(0.5,) * 3, std=(0.25,) * 3)


def items(count: int = 5, size: int = 64) -> Tensor:
    return torch.randn(count, 3, size, size, generator=torch.Generator().manual_seed(1))


def lively(net: nn.Module) -> nn.Module:
    """Give batch norms statistics and weights that matter, as training would."""
    torch.manual_seed(3)
    for part in net.modules():
        if isinstance(part, nn.BatchNorm1d | nn.BatchNorm2d | nn.BatchNorm3d):
            part.running_mean.normal_(0, 0.3)
            part.running_var.uniform_(0.5, 2.0)
            if part.weight is not None:
                nn.init.uniform_(part.weight, 0.5, 1.5)
                nn.init.normal_(part.bias, 0, 0.3)
    return net


class Tail(nn.Module):
    """Two convolutions between which a test puts something."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 8, 3, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.last = nn.Conv2d(8, 6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.conv(x)).relu()).mean((2, 3))


class NormFirst(Tail):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(self.first(x))


class NormAlone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x).relu().mean((2, 3))


class SharedNorm(Tail):
    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.conv(x))
        return self.last(self.norm(x.relu())).mean((2, 3))


class Twice(Tail):
    """The same convolution runs twice, once without a norm behind it."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([super().forward(x), self.conv(x).mean((2, 3))], 1)


class Residual(Tail):
    """What the convolution puts out is read by its norm and by the sum."""

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return self.last(x + self.norm(x)).mean((2, 3))


class ReadsWeight(Tail):
    """The weight of the convolution is used by a function, too."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + F.conv2d(x, self.conv.weight).mean((1, 2, 3))[:, None]


class ReadsNorm(Tail):
    """The parameters of the norm are used outside it."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * self.norm.weight.mean()


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.one, self.two = nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.two.weight = self.one.weight
        self.norm = nn.BatchNorm2d(3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(self.norm(self.one(x)).relu()).mean((2, 3))


class Hooked(Tail):
    def __init__(self) -> None:
        super().__init__()
        self.conv.register_forward_hook(lambda module, args, output: output * 2)


class Closed(Tail):
    """A function keeps the modules of the original: in a copy it would still run these."""

    def __init__(self) -> None:
        super().__init__()
        conv = self.conv
        self.run = lambda x: conv(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.norm(self.run(x)).relu()).mean((2, 3))


class Decides(Tail):
    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        return (self.norm(x) if x.sum() > -1e9 else x).mean((2, 3))


class Kinds(nn.Module):
    """Grouped, transposed, grouped transposed, one-dimensional, and a linear layer with a norm."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, groups=3, stride=2), nn.BatchNorm2d(6), nn.ReLU(),
            nn.ConvTranspose2d(6, 8, 3, groups=2, bias=False), nn.BatchNorm2d(8), nn.ReLU(),
            nn.ConvTranspose2d(8, 4, 2), nn.BatchNorm2d(4, affine=False), nn.ReLU(),
            nn.Conv2d(4, 4, 3, padding=1, padding_mode="circular"), nn.BatchNorm2d(4),
        )  # fmt: skip
        self.line = nn.Sequential(nn.Conv1d(4, 5, 3), nn.BatchNorm1d(5), nn.ReLU())
        self.flat = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7))

    def forward(self, x: Tensor) -> Tensor:
        return self.flat(self.line(self.body(x).mean(3)).mean(2))


USERS = (
    NormFirst, NormAlone, SharedNorm, Twice, Residual, ReadsWeight, ReadsNorm, Tied, Hooked, Closed,
    Decides, Kinds, Tail,
)  # fmt: skip
FOLDS = {NormFirst: 1, Kinds: 6, Tail: 1}
"""Norms that can be folded; of the other networks none."""
LIBRARY = (
    "resnet18", "mobilenetv1_100", "efficientnet_lite0", "vit_tiny_patch16_224", "convnext_atto",
    "swin_tiny_patch4_window7_224", "regnetx_002", "regnety_002", "densenet121", "mobileone_s0",
)  # fmt: skip


def from_timm(name: str) -> tuple[nn.Module, int]:
    import timm

    torch.manual_seed(0)
    sized = name.startswith(("vit", "swin"))
    size = 64
    keywords = {"img_size": size, **({"window_size": 2} if "swin" in name else {})}
    return lively(timm.create_model(name, num_classes=0, **(keywords if sized else {}))), size


def backbone_of(net: nn.Module) -> Backbone:
    return load_backbone(net.eval(), inputs=INPUTS)


def run_on(engine: str, cuts: Any, inputs: Arguments, precision: str = "float32") -> list[Tensor]:
    """Run an engine as the pipeline does."""
    with (
        evaluation_mode(cuts[0].module),
        torch.inference_mode(),
        autocast(precision, CPU),
        find_engine(engine).open(cuts, precision, CPU) as run,
    ):
        return [rows.clone() for rows in run(inputs)]


def expected_of(cuts: Any, inputs: Arguments) -> list[Tensor]:
    with evaluation_mode(cuts[0].module), torch.no_grad():
        return features_of(cuts, inputs)


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float) -> None:
    for one, two in zip(found, expected, strict=True):
        assert one.dtype == two.dtype == torch.float32
        scale = float(two.abs().max())
        assert float((one - two).abs().max()) / scale <= tolerance


class Bits:
    """Everything of a module that a user could see changed."""

    def __init__(self, net: nn.Module) -> None:
        self.net = net
        self.before = self.seen()
        self.bytes = {name: t.clone() for name, t in net.state_dict().items()}

    def seen(self) -> dict[str, Any]:
        tensors = dict(self.net.named_parameters()) | dict(self.net.named_buffers())
        return {
            "tensors": {
                n: (id(t), t.stride(), t.dtype, t.requires_grad) for n, t in tensors.items()
            },
            "modules": {n: (id(m), type(m), m.training) for n, m in self.net.named_modules()},
            "hooks": {n: list(m._forward_hooks) for n, m in self.net.named_modules()},
            "attributes": {n: sorted(vars(m)) for n, m in self.net.named_modules()},
        }

    def check(self) -> None:
        assert self.seen() == self.before
        assert all(torch.equal(t, self.bytes[n]) for n, t in self.net.state_dict().items())


@pytest.mark.parametrize("kind", USERS)
def test_folding_users_networks(kind: Callable[[], nn.Module]) -> None:
    net = lively(kind())
    cuts, inputs = [backbone_of(net)], Arguments((items(),))
    bits = Bits(net)
    assert_close(run_on("eager", cuts, inputs), expected_of(cuts, inputs), 1e-5)
    bits.check()


@pytest.mark.parametrize("kind", FOLDS)
def test_what_can_be_folded_is_folded(kind: Any) -> None:
    net = lively(kind()).eval()
    left = sum(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in net.modules())
    with torch.inference_mode():
        (twin,) = folded([backbone_of(net)], Arguments((items(),)), "float32")
    remain = sum(isinstance(m, nn.BatchNorm1d | nn.BatchNorm2d) for m in twin.module.modules())
    assert left - remain == FOLDS[kind]


@pytest.mark.parametrize("name", LIBRARY)
def test_folding_networks_of_libraries(name: str) -> None:
    net, size = from_timm(name)
    whole = backbone_of(net)
    cuts, inputs = [whole, whole.at(whole.blocks[0])], Arguments((items(3, size),))
    bits = Bits(net)
    assert_close(run_on("eager", cuts, inputs), expected_of(cuts, inputs), 2e-5)
    assert_close(run_on("eager", cuts, inputs, "bfloat16"), expected_of(cuts, inputs), 0.1)
    bits.check()


@pytest.mark.parametrize("pooling", ["avg", "none", "gem"])
@pytest.mark.parametrize("layer", ["conv1", "bn1", "layer1.0.conv2", "layer1.0.bn2", "layer1.0"])
def test_a_tap_between_convolution_and_norm_has_its_own_rows(layer: str, pooling: str) -> None:
    net, size = from_timm("resnet18")
    whole = backbone_of(net)
    cuts, inputs = [whole.at(layer, pooling), whole], Arguments((items(3, size),))
    assert_close(run_on("eager", cuts, inputs), expected_of(cuts, inputs), 2e-5)


def test_a_tapped_container_that_ends_in_a_convolution() -> None:
    torch.manual_seed(0)
    net = nn.Sequential(nn.Sequential(nn.Conv2d(3, 4, 3)), nn.BatchNorm2d(4), nn.Flatten())
    whole = backbone_of(lively(net))
    cuts = [whole.at("0"), whole.at("1")]
    inputs = Arguments((items(3),))
    assert_close(run_on("eager", cuts, inputs), expected_of(cuts, inputs), 1e-5)


RUNTIMES = ("openvino", "onnx", "compile", "aot")


@pytest.mark.slow
@pytest.mark.parametrize("engine", RUNTIMES)
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "efficientnet_lite0"])
def test_runtimes_give_the_rows_of_several_layers_in_one_pass(engine: str, name: str) -> None:
    net, size = from_timm(name)
    whole = backbone_of(net)
    middle = whole.blocks[len(whole.blocks) // 2]
    cuts = [whole, whole.at(middle), whole.at(middle, "gem")]
    inputs = Arguments((items(3, size),))
    bits, state, threads = Bits(net), torch.get_rng_state(), torch.get_num_threads()
    own = random.getstate()
    from torch._inductor import config

    frozen = config.freezing
    assert_close(run_on(engine, cuts, inputs), expected_of(cuts, inputs), 1e-4)
    bits.check()
    assert torch.equal(state, torch.get_rng_state())
    assert (random.getstate(), torch.get_num_threads(), config.freezing) == (own, threads, frozen)
    assert torch.is_grad_enabled()


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["mobilenetv1_100", "convnext_atto", "regnety_002", "swin_tiny_patch4_window7_224"]
)
def test_openvino_runs_other_networks(name: str) -> None:
    net, size = from_timm(name)
    whole = backbone_of(net)
    cuts, inputs = [whole, whole.at(whole.blocks[0])], Arguments((items(3, size),))
    expected = expected_of(cuts, inputs)
    assert_close(run_on("openvino", cuts, inputs), expected, 1e-4)
    if find_engine("openvino").missing() is None:
        assert_close(run_on("openvino", cuts, inputs, "bfloat16"), expected, 0.1)


def test_openvino_runs_a_small_network_up_to_a_tap() -> None:
    net = lively(Tail())
    whole = backbone_of(net)
    cuts, inputs = [whole.at("conv"), whole.at("norm", "gem"), whole], Arguments((items(),))
    bits = Bits(net)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = run_on("openvino", cuts, inputs)
    assert_close(found, expected_of(cuts, inputs), 1e-4)
    bits.check()


class InPlace(nn.Module):
    """Every layer's output is overwritten by the next, and the last needs what is not there."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.first = nn.Conv2d(3, 8, 3), nn.ReLU(inplace=True)
        self.second, self.last = nn.Conv2d(8, 6, 3), nn.Hardswish(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.first(self.conv(x))
        x += 1
        return self.last(self.second(x)).mul_(2)


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
@pytest.mark.parametrize("pooling", ["avg", "none"])
@pytest.mark.parametrize("layer", ["conv", "first", "second", "last"])
def test_runtimes_end_at_a_layer(engine: str, layer: str, pooling: str) -> None:
    """With nothing else read; layers behind it write over its output."""
    cut = backbone_of(InPlace()).at(layer, pooling)
    inputs = Arguments((items(2),))
    assert_close(run_on(engine, [cut], inputs), expected_of([cut], inputs), 1e-4)


class Repeated(nn.Module):
    """Several of its layers put out one and the same tensor."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.start, self.conv = nn.Identity(), nn.Conv2d(3, 6, 3)
        self.rows, self.drop, self.end = nn.Linear(6, 4), nn.Dropout(0.5), nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(self.start(x)).mean((2, 3))
        return self.end(self.drop(self.rows(x)))


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
@pytest.mark.parametrize(
    "read",
    [
        [("rows", "avg"), ("rows", "gem"), ("rows", "none")],
        [("drop", "none"), ("rows", "none"), ("conv", "avg")],
        [("end", "none"), (None, "none")],
        [("start", "none"), ("start", "avg"), (None, "none")],
        [("start", "none")],
    ],
)
def test_runtimes_read_one_tensor_several_times(engine: str, read: list[tuple[Any, str]]) -> None:
    whole = backbone_of(Repeated())
    cuts, inputs = [whole.at(layer, pooling) for layer, pooling in read], Arguments((items(2),))
    assert_close(run_on(engine, cuts, inputs), expected_of(cuts, inputs), 1e-4)


class WideAttention(nn.Module):
    """Attends with five axes, which the exporter to ONNX does not know."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.unflatten(2, (4, 16))
        return F.scaled_dot_product_attention(x, x, x).mean((2, 3, 4))


def test_why_onnx_cannot_express_a_network_is_said() -> None:
    backbone = backbone_of(WideAttention())
    with Extractor((backbone,), Extraction(engine="onnx")) as extractor:
        assert len(list(extractor.rows(split_of(9)))) == 1
        notes = Notes()
        extractor.tell(notes)
    (said,) = notes.said
    assert "ONNX cannot express it: AssertionError: only 4D" in said
    assert "\x1b" not in said
    assert "Next steps" not in said


@pytest.mark.slow
def test_a_second_size_is_compiled_as_a_program_of_its_own() -> None:
    """The compiler would make one for all sizes, which takes minutes for some networks."""
    net = lively(InPlace())
    torch.compiler.reset()
    for size in (32, 48, 64):
        cut, inputs = backbone_of(net), Arguments((items(2, size),))
        symbols: list[Any] = []
        real = ShapeEnv.create_symbol

        def create(*args: Any, _real: Any = real, _to: list[Any] = symbols, **kwargs: Any) -> Any:
            made = _real(*args, **kwargs)
            _to.extend([] if made.is_number else [made])
            return made

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(ShapeEnv, "create_symbol", create)
            assert_close(run_on("compile", [cut], inputs), expected_of([cut], inputs), 1e-4)
        assert symbols == []


def test_a_program_ends_at_its_last_layer() -> None:
    whole = backbone_of(from_timm("test_resnet")[0])

    def size(layer: str | None) -> int:
        cut = whole.at(layer) if layer else whole
        with evaluation_mode(cut.module):
            program = exported([cut], Arguments((items(2),)))
        calls = [node for node in program.graph.nodes if node.op == "call_function"]
        return sum("conv" in str(node.target) for node in calls)

    sizes = [size(layer) for layer in ("layer1", "layer2", None)]
    assert sizes == sorted(set(sizes))


def split_of(count: int):
    images = np.random.default_rng(0).integers(0, 256, (count, 64, 64, 3), dtype=np.uint8)
    return load_items((images, np.zeros(count, int)))


class Notes:
    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@pytest.mark.parametrize("engine", ["openvino", "onnx"])
def test_what_an_engine_cannot_express_runs_as_it_is_written(engine: str) -> None:
    backbone = backbone_of(lively(Decides()))
    with Extractor((backbone,), Extraction(engine=engine)) as extractor:
        (rows,) = extractor.rows(split_of(9))
        notes = Notes()
        extractor.tell(notes)
    (said,) = notes.said
    assert said.startswith(f"the engine '{engine}' cannot run this network (it cannot be recorded")
    assert said.endswith("it runs as written")
    expected = extract(backbone, split_of(9)).features[0]
    np.testing.assert_array_equal(rows.features[0], expected)


def test_an_engine_that_is_not_installed_says_so_in_one_line(monkeypatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "openvino" else find(name, *a)
    )
    with pytest.raises(MissingExtraError) as caught:
        extract(backbone_of(Tail()), split_of(3), settings=Extraction(engine="openvino"))
    assert str(caught.value) == (
        "engine='openvino' needs the package 'openvino', which is not installed; "
        "run: pip install 'headstart[openvino]'"
    )


def _here() -> list[Any]:
    """Every engine in the table that has its packages and can run on a CPU."""
    found = [e.name for e in engines() if e.missing() is None and e.name != "cudagraphs"]
    return [
        name if name == "eager" else pytest.param(name, marks=pytest.mark.slow) for name in found
    ]


@pytest.mark.parametrize("engine", _here())
def test_rows_are_the_same_whatever_the_batch_size_and_order(engine: str) -> None:
    backbone, split = backbone_of(lively(Kinds())), split_of(20)
    one = extract(backbone, split, settings=Extraction(engine=engine, batch_size=8)).features[0]
    again = extract(backbone, split, settings=Extraction(engine=engine, batch_size=8)).features[0]
    np.testing.assert_array_equal(one, again)
    settings = Extraction(engine=engine, batch_size=5, workers=2)
    order = np.random.default_rng(0).permutation(20)
    other = extract(backbone, split.take(order), settings=settings).features[0]
    np.testing.assert_allclose(other, one[order], atol=1e-5 * np.abs(one).max())


REPORTS = """
import os, sys
from pathlib import Path
os.environ["HOME"] = sys.argv[1]
imported = sys.argv[2] == "imported"
if imported:
    from openvino_telemetry.utils.sender import TelemetrySender
    TelemetrySender.send = lambda *a, **k: print(ours, "reported")
    ours = "not ours:"
    import nncf
    import openvino
    ours = "ours:"
import multiprocessing
import numpy as np
from torch import nn
from headstart import load_backbone, load_items, extract
from headstart.extraction import Extraction
from headstart.extraction.int8 import calibrate

network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
backbone = load_backbone(network, size=8, mean=0.5, std=0.5)
items = load_items([np.full((8, 8, 3), 9 * k, np.uint8) for k in range(3)])
for engine in ("openvino", "onnx"):
    extract(backbone, items, settings=Extraction(engine=engine, batch_size=3))
calibrate(backbone, items)
print("start method", multiprocessing.get_start_method(allow_none=True))
if not imported:
    multiprocessing.set_start_method("spawn")
    print("reporter", "openvino_telemetry" in sys.modules)
    print("files", [p.name for p in Path(sys.argv[1]).rglob("*openvino*")])
"""


@pytest.mark.slow
@pytest.mark.parametrize("before", ["imported", "not imported"])
def test_openvino_reports_nothing_and_starts_nothing(before: str, tmp_path: Path) -> None:
    for package in ("openvino", "nncf", "openvino_telemetry", "onnxruntime", "onnxscript"):
        pytest.importorskip(package)
    command = [sys.executable, "-c", REPORTS, str(tmp_path), before]
    # The package of telemetry reports nothing by itself where one of these says "a CI job".
    env = {k: v for k, v in os.environ.items() if k not in {"CI", "TF_BUILD", "JENKINS_URL"}}
    found = subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=True, env=env
    )
    lines = found.stdout.splitlines()
    assert "start method None" in lines
    assert "ours: reported" not in lines
    if before == "imported":
        assert "not ours: reported" in lines  # the user's own import, which is the user's
    else:
        assert lines[-2:] == ["reporter False", "files []"]
