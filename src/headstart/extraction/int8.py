"""Networks in int8: OpenVINO runs them, NNCF calibrates them on training items.

A calibrated network is another function of its items than the network it was made of, so that it is
a module of its own: its graph and its weights are buffers, which enter the keys of rows and the
folder of a run as those of any other network do.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import io
import logging
import time
import weakref
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from headstart.backbones import Backbone, features_of
from headstart.backbones.passes import recordable_features
from headstart.core.arguments import Arguments
from headstart.core.errors import BackboneError, MissingExtraError
from headstart.core.records import INT8
from headstart.core.scratch import scratch_folder
from headstart.core.wording import format_percent
from headstart.data import Split, read_batches
from headstart.extraction.engines.exporting import first_line, recorded
from headstart.extraction.engines.openvino import (
    as_openvino,
    load_openvino,
    openvino_core,
    without_reporter,
)
from headstart.extraction.engines.table import EngineUnfitError
from headstart.extraction.precision import INT8_TENSORS, row_errors
from headstart.modules.modes import evaluation_mode

ITEMS = 256
"""Training items that ranges are taken from; NNCF's own default is 300."""
_BATCH, _ROUNDS = 16, 3
_SHAPES = 8
_REQUESTS: weakref.WeakKeyDictionary[Int8Network, dict[Any, Any]] = weakref.WeakKeyDictionary()


class Int8Network(nn.Module):
    """A network up to its cut, as OpenVINO's graph of int8 operations.

    Args:
        graph: ``(n,) uint8``, the XML of OpenVINO's representation.
        weights: ``(m,) uint8``, its constants.
    """

    graph: Tensor
    weights: Tensor

    def __init__(self, graph: Tensor, weights: Tensor) -> None:
        super().__init__()
        self.register_buffer("graph", graph)
        self.register_buffer("weights", weights)

    def forward(self, pixels: Tensor) -> Tensor:
        """Return the rows of a batch of any size, ``(n, d) float32``."""
        count = len(pixels)
        full = 1 << (count - 1).bit_length()  # few shapes are compiled, whatever batches come
        if full > count:
            pixels = torch.cat([pixels, pixels[-1:].expand(full - count, *pixels.shape[1:])])
        request = self._request(tuple(pixels.shape))
        request.infer([pixels.detach().float().contiguous().numpy()], share_inputs=True)
        return torch.from_numpy(request.get_output_tensor(0).data[:count].copy())

    def _request(self, shape: tuple[int, ...]) -> Any:
        """Return what runs batches of a shape; the network is compiled for a few of them."""
        openvino = load_openvino()
        known = _REQUESTS.setdefault(self, {})
        key = (shape, torch.get_num_threads())
        if key not in known:
            if len(known) >= _SHAPES:
                known.clear()
            core = openvino_core()
            weights = openvino.Tensor(self.weights.numpy())
            model = core.read_model(self.graph.numpy().tobytes(), weights)
            model.reshape(list(shape))
            settings = {
                # What is not in int8 is in float32, on every machine.
                "INFERENCE_PRECISION_HINT": "f32",
                "INFERENCE_NUM_THREADS": torch.get_num_threads(),
                "PERFORMANCE_HINT": "LATENCY",
            }
            known[key] = core.compile_model(model, "CPU", settings).create_infer_request()
        return known[key]


@dataclass(frozen=True)
class Calibrated:
    """A network in int8, and what that costs.

    Attributes:
        backbone: with it, cut at its end.
        off: the median and the largest distance of a row of a calibration item from that in
            float32, relative to its length.
        gain: how many times as fast as the network as it is written in float32.
        items: how many were calibrated on.
        seconds: that it took.
    """

    backbone: Backbone
    off: tuple[float, float]
    gain: float
    items: int
    seconds: float

    def tensors(self) -> Mapping[str, Tensor]:
        """Return what a run keeps of the network."""
        return dict(zip(INT8_TENSORS, (self._network.graph, self._network.weights), strict=True))

    @property
    def _network(self) -> Int8Network:
        assert isinstance(self.backbone.module, Int8Network)
        return self.backbone.module

    def __str__(self) -> str:
        unit, (middle, most) = self.backbone.inputs.unit, self.off
        return (
            f"precision int8: calibrated on {self.items:,} training {unit}, whose rows differ from"
            f" those in float32 by {format_percent(middle)} of their length in the median,"
            f" {format_percent(most)} at most; {self.gain:.1f} × as fast as float32 as written"
        )


def missing() -> MissingExtraError | None:
    """Return which package of the extra is not installed; None: nothing is missing."""
    for package in ("openvino", "nncf"):
        if importlib.util.find_spec(package) is None:
            return MissingExtraError(package, INT8, "precision='int8'")
    return None


def int8_backbone(cut: Backbone, tensors: Mapping[str, Tensor]) -> Backbone:
    """Return a cut around its network in int8.

    Args:
        cut: of the network that was calibrated.
        tensors: by the names of :data:`~headstart.extraction.precision.INT8_TENSORS`.
    """
    network = Int8Network(*(tensors[name] for name in INT8_TENSORS)).eval()
    return Backbone(
        cut.name,
        network,
        cut.inputs,
        origin=cut.origin,
        notes=cut.notes,
        about=cut.about,
    )


def calibrate(cut: Backbone, train: Split) -> Calibrated:
    """Return the network in int8, calibrated on some training items, always the same.

    Args:
        cut: the network, on the CPU.
        train: training items; no other item decides a range.

    Raises:
        MissingExtraError: OpenVINO or NNCF is not installed.
        BackboneError: this network cannot run in int8, with the reason.
    """
    absent = missing()
    if absent is not None:
        raise absent
    if cut.device.type != "cpu":
        raise _unfit(cut, f"OpenVINO runs on the CPU, not on {cut.device}")
    begun = time.perf_counter()
    batches = _read(cut, train)
    with evaluation_mode(cut.module), torch.no_grad():
        try:
            graph, weights = _quantised(_recorded(cut, batches[0]), batches)
        except EngineUnfitError as unfit:
            raise _unfit(cut, str(unfit)) from unfit
        made = int8_backbone(cut, dict(zip(INT8_TENSORS, (graph, weights), strict=True)))
        off, gain = _compared(cut, made, batches)
    count = sum(len(batch) for batch in batches)
    return Calibrated(made, off, gain, count, time.perf_counter() - begun)


def _unfit(cut: Backbone, reason: str) -> BackboneError:
    return BackboneError(f"{cut.name} does not run in int8: {reason}", hint="use precision='auto'")


def calibration_items(train: Split) -> np.ndarray:
    """Return positions of the items that are calibrated on: the first by their content's digest."""
    return np.argsort(np.asarray(train.ids), kind="stable")[:ITEMS]


def _read(cut: Backbone, train: Split) -> list[Arguments]:
    reader = read_batches(
        train, calibration_items(train), cut.inputs, batch_size=_BATCH, on_bad="skip"
    )
    with contextlib.closing(reader):
        batches = [batch.arguments(cut.device) for batch in reader]
    for batch in batches:
        shapes = {tuple(tensor.shape[1:]) for tensor in batch.tensors()}
        first = {tuple(tensor.shape[1:]) for tensor in batches[0].tensors()}
        if batch.kwargs or len(batch.args) != 1 or batch.mask is not None or shapes != first:
            raise _unfit(cut, "it is calibrated on images of one size, and these items are not")
    if not batches:
        raise _unfit(cut, "no training item can be read")
    return batches


class _Rows(nn.Module):
    """A network up to its cut, for any number of images."""

    def __init__(self, cut: Backbone) -> None:
        super().__init__()
        self.network, self.cut = cut.module, cut

    def forward(self, pixels: Tensor) -> Tensor:
        with recordable_features([self.cut]) as run:
            rows: Tensor = run(Arguments((pixels,)))[0]
            return rows


def _recorded(cut: Backbone, inputs: Arguments) -> Any:
    _ = cut.layout  # found by runs of its own, which have no place in a program
    (pixels,) = inputs.args
    some = pixels[:1].expand(2, *pixels.shape[1:])
    program = recorded(_Rows(cut), [some], [{0: torch.export.Dim("n", min=1)}])
    return as_openvino(program)


def _quantised(model: Any, batches: Sequence[Arguments]) -> tuple[Tensor, Tensor]:
    """Return graph and weights of a model in int8."""
    with _quiet(), _unreported() as nncf:
        types = {node.get_type_name() for node in model.get_ops()}
        attends = "ScaledDotProductAttention" in types or {"Softmax", "MatMul"} <= types
        try:
            made = nncf.quantize(
                model,
                nncf.Dataset([batch.args[0].numpy() for batch in batches]),
                preset=nncf.QuantizationPreset.MIXED,
                subset_size=len(batches),
                model_type=nncf.ModelType.TRANSFORMER if attends else None,
            )
        except Exception as error:  # of the library, of many types
            raise EngineUnfitError(f"NNCF cannot calibrate it: {first_line(error)}") from error
        return _saved(made)


def _saved(model: Any) -> tuple[Tensor, Tensor]:
    """Return the bytes of a model; of one that was made again they are the same."""
    openvino = load_openvino()
    model.set_friendly_name("network")
    for number, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(f"{node.get_type_name()}_{number}")  # else counted by the process
    with scratch_folder() as folder:
        path = folder / "network.xml"
        openvino.save_model(model, path, compress_to_fp16=False)
        content = path.read_bytes(), path.with_suffix(".bin").read_bytes()
    graph, weights = (torch.from_numpy(np.frombuffer(part, np.uint8).copy()) for part in content)
    return graph, weights


@contextlib.contextmanager
def _unreported() -> Iterator[Any]:
    """Import NNCF, and keep it from reporting to its makers that it is used."""
    openvino_core()  # before those of NNCF
    with without_reporter():
        import nncf
    decorator: Any = importlib.import_module("nncf.telemetry.decorator")
    wrapper: Any = importlib.import_module("nncf.telemetry.wrapper")
    before, decorator.telemetry = decorator.telemetry, wrapper.NNCFTelemetryStub()
    try:
        yield nncf
    finally:
        decorator.telemetry = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep what the library prints and logs from the user's terminal."""
    logger = logging.getLogger("nncf")
    level = logger.level
    try:
        logger.setLevel(logging.ERROR)
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        logger.setLevel(level)


def _compared(
    cut: Backbone, made: Backbone, batches: Sequence[Arguments]
) -> tuple[tuple[float, float], float]:
    """Return how far rows are off, and how many times as fast they come."""
    errors, times = [], ([], [])  # type: ignore[var-annotated]
    for batch in batches:
        exact, found = (features_of([each], batch)[0] for each in (cut, made))
        errors.append(row_errors(found, exact))
    for _ in range(_ROUNDS):
        for each, taken in zip((cut, made), times, strict=True):
            begun = time.perf_counter()
            features_of([each], batches[0])
            taken.append(time.perf_counter() - begun)
    every = torch.cat(errors)
    return (float(every.median()), float(every.max())), min(times[0]) / min(times[1])


__all__ = [
    "Calibrated",
    "Int8Network",
    "calibrate",
    "calibration_items",
    "int8_backbone",
    "missing",
]
