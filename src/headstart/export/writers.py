"""What writes the network of an artefact, one function for each format."""

from __future__ import annotations

import json
from pathlib import Path

from headstart.core.files import write_bytes, write_text
from headstart.export.formats import Written
from headstart.export.graph import Graph, recorded_graph
from headstart.export.keras_model import keras_model
from headstart.export.network import made_module
from headstart.export.predictor import Predictor
from headstart.export.scripts.run_safetensors import FORMAT
from headstart.export.steps import listed_steps


def graph_of(predictor: Predictor, *, fenced: bool = False) -> Graph:
    """Return a run as a recorded program, on the CPU."""
    module = made_module(predictor).cpu()
    module.fenced = fenced
    return recorded_graph(module)


def write_onnx(predictor: Predictor, folder: Path) -> Written:
    """Write ``model.onnx``, with the names of classes in its metadata."""
    from headstart.extraction.engines.onnx import as_onnx

    graph = graph_of(predictor)
    names = (_output(predictor),)
    made = as_onnx(graph.program, input_names=graph.inputs, output_names=names)
    for key, value in _metadata(predictor).items():
        entry = made.metadata_props.add()
        entry.key, entry.value = key, value
    write_bytes(folder / "model.onnx", made.SerializeToString())
    return Written(graph.inputs, graph.any_number)


def write_openvino(predictor: Predictor, folder: Path) -> Written:
    """Write ``model.xml`` and ``model.bin``, in float32."""
    from headstart.extraction.engines.openvino import as_openvino, load_openvino

    graph = graph_of(predictor, fenced=True)
    model = as_openvino(graph.program)
    for port, name in zip(model.inputs, graph.inputs, strict=True):
        port.get_tensor().set_names({name})
    model.outputs[0].get_tensor().set_names({_output(predictor)})
    for key, value in _metadata(predictor).items():
        model.set_rt_info(value, ["model_info", key])
    load_openvino().save_model(model, folder / "model.xml", compress_to_fp16=False)
    return Written(graph.inputs, graph.any_number)


def write_pt2(predictor: Predictor, folder: Path) -> Written:
    """Write ``model.pt2``."""
    import torch

    graph = graph_of(predictor)
    extra = {f"{key}.json": value for key, value in _metadata(predictor).items()}
    torch.export.save(graph.program, folder / "model.pt2", extra_files=extra)
    return Written(graph.inputs, graph.any_number)


def write_safetensors(predictor: Predictor, folder: Path) -> Written:
    """Write ``model.safetensors`` and ``program.json``; see :mod:`headstart.export.steps`."""
    import safetensors.torch

    graph = graph_of(predictor)
    steps, tensors = listed_steps(graph.program)
    document = json.dumps({"format": FORMAT, "steps": steps}, ensure_ascii=False)
    write_text(folder / "program.json", document + "\n")
    write_bytes(folder / "model.safetensors", safetensors.torch.save(tensors, _metadata(predictor)))
    return Written(graph.inputs, graph.any_number)


def write_keras(predictor: Predictor, folder: Path) -> Written:
    """Write ``model.keras``, which takes pixels and holds the layers of the backbone."""
    keras_model(predictor.backbone, predictor.head).save(folder / "model.keras")
    return Written(("pixels",))


def _output(predictor: Predictor) -> str:
    return "values" if predictor.head.task == "regression" else "probabilities"


def _metadata(predictor: Predictor) -> dict[str, str]:
    """Return what the file of the network says of itself, each value as JSON."""
    head = predictor.head
    thresholds = None if head.thresholds is None else head.thresholds.tolist()
    values = {"classes": list(predictor.classes), "task": head.task, "thresholds": thresholds}
    return {key: json.dumps(value, ensure_ascii=False) for key, value in values.items()}


__all__ = [
    "graph_of",
    "write_keras",
    "write_onnx",
    "write_openvino",
    "write_pt2",
    "write_safetensors",
]
