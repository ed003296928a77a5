"""Features of frozen networks, model only: headstart's engines against other ways to run them.

All variants get the same batch of float32 pixels in memory and end with the same pooled rows. They
run in turn in every round; the ratio to the eager ``no_grad`` float32 loop of
the same round is one observation. Reported are the median rate, the median ratio, and its smallest
and largest value. Beside them stands what the machine reaches in a matrix product (float32 and
bfloat16), and which share of it a network's multiplications are computed at. Weights are random.

    python benchmarks/extract.py --models resnet18 resnet50 --rounds 5

On a machine that others use, ``--threads 1 --clock cpu`` counts seconds of the processor.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from importlib import metadata
from typing import Any

import numpy as np
import timm
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from headstart.backbones import Backbone, load_backbone
from headstart.core.arguments import Arguments
from headstart.data import Preprocessing
from headstart.extraction.engines import find_engine
from headstart.extraction.engines.exporting import first_line
from headstart.extraction.machine import _processor
from headstart.extraction.precision import autocast
from headstart.extraction.replica import items_a_pass
from headstart.modules.modes import evaluation_mode

warnings.filterwarnings("ignore")
MODELS = {
    "resnet18": ("resnet18", 224, 32),
    "resnet50": ("resnet50", 224, 16),
    "mobilenetv1": ("mobilenetv1_100", 224, 32),
    "efficientnet-lite0": ("efficientnet_lite0", 224, 32),
    "vit-s": ("vit_small_patch16_224", 224, 16),
    "dinov3-s": ("vit_small_patch16_dinov3", 224, 16),
}
"""By name: timm's model, pixels, batch."""
BASE = "eager loop, float32"
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
CHOSEN = ["wall"]
Pass = Callable[[], Any]


@dataclass
class Variant:
    """One way of running a network: opened once, called once a round."""

    name: str
    run: Pass
    setup: float
    rates: list[float] = field(default_factory=list)


def clock() -> float:
    """Return seconds of the clock that was chosen."""
    return CLOCKS[CHOSEN[0]]()


def lively(net: nn.Module) -> nn.Module:
    """Give batch norms statistics as training leaves them; random ones would hide their folding."""
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_(0, 0.1)
            part.running_var.uniform_(0.5, 1.5)
    return net.eval()


class Others:
    """Ways to run a network without headstart; each returns a pass over the batch."""

    def __init__(self, net: nn.Module, pixels: Tensor) -> None:
        self.net, self.pixels, self.kind = net, pixels, pixels.device.type
        self.last = pixels.contiguous(memory_format=torch.channels_last)

    def thread(self) -> Pass:
        """The loop of the thread of the seeds: gradients on, in evaluation mode here."""
        return lambda: self.net(self.pixels).detach()

    def eager(self) -> Pass:
        """The loop that everything is compared with."""

        def run() -> Tensor:
            with torch.no_grad():
                return self.net(self.pixels)

        return run

    def timm_loop(self) -> Pass:
        """What timm's ``inference.py`` does with a batch, ``--channels-last`` given."""

        def run() -> Tensor:
            with torch.inference_mode():
                return self.net(self.last).float().cpu()

        return run

    def half(self) -> Pass:
        """The same in bfloat16, by autocast."""

        def run() -> Tensor:
            with torch.inference_mode(), torch.autocast(self.kind, torch.bfloat16):
                return self.net(self.last)

        return run

    def compiled(self, half: bool) -> Pass:
        """``torch.compile`` at its best: freezing, channels last."""
        import torch._inductor.config as settings

        torch.compiler.reset()  # it keeps few programs for a piece of code, and this is one
        code = torch.compile(lambda x: self.net(x))

        def run() -> Tensor:
            with (
                torch.no_grad(),
                torch.autocast(self.kind, torch.bfloat16, enabled=half),
                settings.patch(freezing=self.kind == "cpu"),
            ):
                return code(self.last)

        return run

    def openvino(self, hint: str) -> Pass:
        """OpenVINO, all threads on one batch."""
        import openvino

        with torch.no_grad():
            model = openvino.convert_model(torch.export.export(self.net, (self.pixels,)))
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        request = openvino.Core().compile_model(model, "CPU", settings).create_infer_request()
        pixels = self.pixels.numpy()
        return lambda: request.infer([pixels], share_inputs=True, share_outputs=True)

    def onnx(self) -> Pass:
        """ONNX Runtime."""
        import onnxruntime

        with torch.no_grad():
            made = torch.onnx.export(self.net, (self.pixels,), dynamo=True, verbose=False)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        options.log_severity_level = 3
        session = onnxruntime.InferenceSession(
            made.model_proto.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        given = {session.get_inputs()[0].name: self.pixels.numpy()}
        return lambda: session.run(None, given)

    def hugging_face(self) -> Pass:
        """``pipeline("image-feature-extraction")``, which also resizes and normalises."""
        from PIL import Image
        from transformers import ViTConfig, ViTImageProcessor, ViTModel, pipeline

        size = self.pixels.shape[-1]
        config = ViTConfig(hidden_size=384, num_attention_heads=6, intermediate_size=1536)
        maker = pipeline(
            "image-feature-extraction",
            model=ViTModel(config, add_pooling_layer=False).eval(),
            image_processor=ViTImageProcessor(size={"height": size, "width": size}),
            device="cpu",
            batch_size=len(self.pixels),
        )
        noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
        pictures = [Image.fromarray(noise)] * len(self.pixels)
        return lambda: maker(pictures, return_tensors=True)

    def keras(self, name: str) -> Pass:
        """``predict`` of the same architecture."""
        import keras

        size = self.pixels.shape[-1]
        model = getattr(keras.applications, name)(
            weights=None, include_top=False, pooling="avg", input_shape=(size, size, 3)
        )
        pixels = self.pixels.permute(0, 2, 3, 1).contiguous().numpy()
        return lambda: model.predict(pixels, batch_size=len(pixels), verbose=0)


def ours(engine: str, precision: Any, cut: Backbone, pixels: Tensor) -> Pass:
    """An engine of headstart, called as the pipeline calls it: a few images a pass on a CPU."""
    opened, device = contextlib.ExitStack(), pixels.device
    inputs = Arguments((pixels,))
    passes = inputs.split(items_a_pass(inputs, len(pixels), torch.get_num_threads()))

    @contextlib.contextmanager
    def computing() -> Iterator[None]:
        with evaluation_mode(cut.module), torch.inference_mode(), autocast(precision, device):
            yield

    with computing():
        forward = opened.enter_context(find_engine(engine).open([cut], precision, device))

    def run() -> Any:
        with computing():
            return [[rows.float().cpu().numpy() for rows in forward(some)] for some in passes]

    return run


def variants(name: str, net: nn.Module, pixels: Tensor) -> dict[str, Callable[[], Pass]]:
    """Return all variants by name, as functions that open them."""
    other = Others(net, pixels)
    size, cpu = pixels.shape[-1], pixels.device.type == "cpu"
    inputs = Preprocessing(size=(size, size), mean=(0.5,) * 3, std=(0.25,) * 3)
    cut = load_backbone(net, inputs=inputs)
    found: dict[str, Callable[[], Pass]] = {
        BASE: other.eager,
        "thread 000's loop (gradients on)": other.thread,
        "timm's inference loop, channels last": other.timm_loop,
        "eager loop, autocast bfloat16, channels last": other.half,
        "torch.compile, float32": lambda: other.compiled(False),
        "torch.compile, bfloat16": lambda: other.compiled(True),
    }
    if cpu:
        found["ONNX Runtime, float32"] = other.onnx
        found["OpenVINO, f32"] = lambda: other.openvino("f32")
        found["OpenVINO, bf16"] = lambda: other.openvino("bf16")
    if cpu and name == "vit-s":
        found["Hugging Face pipeline, preprocessing included"] = other.hugging_face
    if cpu and name in ("resnet50", "mobilenetv1"):
        kind = {"resnet50": "ResNet50", "mobilenetv1": "MobileNet"}[name]
        found["Keras predict (PyTorch backend)"] = lambda: other.keras(kind)
    engines = ("eager", "compile", "aot")
    pairs = [(e, p) for e in engines for p in ("float32", "bfloat16")]
    if cpu:
        pairs += [("onnx", "float32"), ("openvino", "float32"), ("openvino", "bfloat16")]
    else:
        pairs += [("eager", "tf32"), ("compile", "tf32"), ("cudagraphs", "bfloat16")]
    for engine, precision in pairs:
        found[f"headstart {engine}, {precision}"] = partial(ours, engine, precision, cut, pixels)
    return found


def settled(work: Pass, device: torch.device) -> Any:
    """Run, and wait until a GPU has finished."""
    made = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return made


def best(work: Pass, seconds: float = 0.5, least: int = 3) -> float:
    times: list[float] = []
    while len(times) < least or sum(times) < seconds:
        begun = clock()
        work()
        times.append(clock() - begun)
    return min(times)


def gemm(kind: torch.dtype, device: torch.device) -> float:
    """Return the rate of a square matrix product, in multiply-adds a second."""
    size = 2048 if device.type == "cpu" else 8192
    one, two = (torch.randn(size, size, device=device).to(kind) for _ in range(2))
    with torch.no_grad():
        return size**3 / best(lambda: settled(lambda: one @ two, device))


def bandwidth(device: torch.device) -> float:
    """Return the bytes a second that a large copy reads and writes."""
    one = torch.empty(2**26, dtype=torch.float32, device=device)
    two = torch.empty_like(one)
    return 2 * one.nbytes / best(lambda: settled(lambda: two.copy_(one), device))


def multiplications(net: nn.Module, pixels: Tensor) -> float:
    """Return the multiply-adds of one image."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        net(pixels[:1])
    return counter.get_total_flops() / 2


def measure(
    name: str, rounds: int, wanted: list[str], device: torch.device, batch: int | None
) -> dict[str, Any]:
    """Open all variants of a network, and time them in turn."""
    model, size, count = MODELS[name]
    count = batch or (count if device.type == "cpu" else 512)
    torch.manual_seed(0)
    net = lively(timm.create_model(model, pretrained=False, num_classes=0)).to(device)
    pixels = torch.randn(count, 3, size, size, device=device)
    opened: list[Variant] = []
    for label, make in variants(name, net, pixels).items():
        if wanted and label != BASE and not any(word in label for word in wanted):
            continue
        begun = clock()
        try:
            run = make()
            settled(run, device)
        except Exception as error:
            print(f"  {label}: {first_line(error)}", flush=True)
            continue
        opened.append(Variant(label, run, clock() - begun))
        settled(run, device)
    ceilings: dict[str, list[float]] = {"float32": [], "bfloat16": []}
    for _ in range(rounds):
        for label, kind in (("float32", torch.float32), ("bfloat16", torch.bfloat16)):
            ceilings[label].append(gemm(kind, device))
        for variant in opened:
            begun = clock()
            settled(variant.run, device)
            variant.rates.append(count / (clock() - begun))
    peak = {label: statistics.median(found) for label, found in ceilings.items()}
    work = multiplications(net, pixels)
    base = next(variant for variant in opened if variant.name == BASE)
    rows = []
    for variant in opened:
        ratios = [one / two for one, two in zip(variant.rates, base.rates, strict=True)]
        rate = statistics.median(variant.rates)
        label = "bfloat16" if any(w in variant.name for w in ("bfloat16", "bf16")) else "float32"
        rows.append(
            {
                "variant": variant.name,
                "rate": rate,
                "ratio": statistics.median(ratios),
                "low": min(ratios),
                "high": max(ratios),
                "share": rate * work / peak[label],
                "setup": variant.setup,
            }
        )
    return {"model": name, "batch": count, "gemm": peak, "multiplications": work, "rows": rows}


def show(found: dict[str, Any]) -> None:
    """Print one network's table."""
    peak = found["gemm"]
    print(
        f"\n### {found['model']}, batches of {found['batch']}\n\n"
        f"{found['multiplications'] / 1e9:.2f} G multiply-adds an image; a matrix product has "
        f"{peak['float32'] / 1e9:,.0f} G/s in float32, {peak['bfloat16'] / 1e9:,.0f} G/s in "
        "bfloat16.\n\n| | images/s | × eager float32 | of the matrix product | ready after |\n"
        "| --- | --- | --- | --- | --- |"
    )
    for row in found["rows"]:
        print(
            f"| {row['variant']} | {row['rate']:,.0f} | {row['ratio']:.2f} "
            f"({row['low']:.2f}–{row['high']:.2f}) | {row['share']:.0%} | {row['setup']:.1f} s |"
        )
    print(flush=True)


def machine(device: torch.device) -> str:
    """Name the machine and the libraries."""
    libraries = ", ".join(
        f"{name} {metadata.version(name)}" for name in ("torch", "timm", "openvino", "onnxruntime")
    )
    return (
        f"{_processor()}, {torch.get_num_threads()} threads, {platform.system()}, {libraries}; "
        f"copies of memory at {bandwidth(device) / 1e9:.1f} GB/s"
    )


def main() -> None:
    """Measure the networks that are named, and print a table of each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--clock", choices=list(CLOCKS), default="wall")
    parser.add_argument("--batch", type=int, help="images in a batch; default: by model")
    parser.add_argument("--variants", nargs="*", default=[], help="parts of names; empty: all")
    parser.add_argument("--json", help="write the figures to this file, too")
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    device, CHOSEN[0] = torch.device(given.device), given.clock
    print(machine(device), flush=True)
    found = []
    for name in given.models:
        found.append(measure(name, given.rounds, given.variants, device, given.batch))
        show(found[-1])
        if given.json:
            with open(given.json, "w") as file:  # noqa: PTH123
                json.dump(found, file, indent=1)


if __name__ == "__main__":
    main()
