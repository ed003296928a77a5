"""Keras models as trees of modules: the same tensors, the same function, modes that hold."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from torch.func import functional_call
from torch.profiler import profile

from headstart.core.errors import BackboneError
from headstart.modules.forward import capture, hooked
from headstart.modules.keras import KerasPart, torch_network
from headstart.modules.keras_contract import as_module
from headstart.modules.keras_inference import ImageLayer, for_inference
from headstart.study.memory import CountingMemory
from tests.keras_models import MODELS, images, keras, mobilenet, nested, residual, settled

ALL = pytest.mark.parametrize("name", MODELS)


def same(one: torch.Tensor, other: torch.Tensor) -> bool:
    return torch.allclose(one, other, rtol=1e-5, atol=1e-6)


@ALL
def test_the_tree_computes_what_the_model_computes(name: str) -> None:
    model = MODELS[name]()
    tree = torch_network(model).eval()
    x = images(model)
    with torch.no_grad():
        assert same(tree(x), model(x, training=False))
        assert same(tree(x), torch.as_tensor(model.predict(x.numpy(), verbose=0)))


@ALL
def test_every_variable_is_in_the_tree_once_and_shared(name: str) -> None:
    model = MODELS[name]()
    tree = torch_network(model)
    tensors = [*tree.parameters(), *tree.buffers()]
    assert {id(tensor) for tensor in tensors} == {id(v._value) for v in model.variables}
    assert len(tensors) == len(model.variables)
    weights = {id(v._value) for v in model.trainable_variables}
    assert {id(p) for p in tree.parameters()} == weights
    norms = [p for p in tree.modules() if "running_mean" in getattr(p, "_buffers", {})]
    kinds = [x for x in model._flatten_layers() if type(x).__name__ == "BatchNormalization"]
    assert len(norms) == len(kinds)


@ALL
def test_eval_and_train_mean_what_they_say(name: str) -> None:
    """Keras ignores the modes of PyTorch; the tree does not."""
    model = MODELS[name]()
    tree = torch_network(model)
    x = images(model)
    before = [buffer.clone() for buffer in tree.buffers()]
    with torch.no_grad():
        tree.eval()
        assert torch.equal(tree(x), tree(x))
        assert all(torch.equal(a, b) for a, b in zip(before, tree.buffers(), strict=True))
        tree.train()
        moved = tree(x)
    norms = any("running_mean" in key for key, _ in tree.named_buffers())
    statistics = [
        not torch.equal(a, b)
        for a, (key, b) in zip(before, tree.named_buffers(), strict=True)
        if "running" in key
    ]
    # Nothing moves where the graph itself says training=False.
    assert any(statistics) is (norms and name != "nested")
    assert all(statistics) is any(statistics) or not statistics
    assert not torch.equal(moved, tree.eval()(x)) or name == "mobilenet"


def test_one_part_in_evaluation_mode_stays_there() -> None:
    model = MODELS["blocks"]()
    tree = torch_network(model).train()
    tree.get_submodule("first.norm").eval()
    tree.get_submodule("second.drop").eval()
    before = {key: buffer.clone() for key, buffer in tree.named_buffers()}
    tree(images(model))
    moved = {key for key, buffer in tree.named_buffers() if not torch.equal(before[key], buffer)}
    assert "second.norm.running_mean" in moved
    assert not {key for key in moved if key.startswith(("first.norm", "second.drop"))}
    assert any(key.startswith("first.drop") for key in moved)  # its seed


def test_hooks_see_layers_inside_layers() -> None:
    model = MODELS["blocks"]()
    tree = torch_network(model).eval()
    seen: list[str] = []
    names = {n: m for n, m in tree.named_modules() if n}
    with torch.no_grad(), hooked(names, after=lambda name, _output: seen.append(name)):
        tree(images(model))
    assert seen == [
        *("first.conv", "first.norm", "first.drop", "first"),
        *("second.conv", "second.norm", "second.drop", "second", "pool", "dense"),
    ]
    inner = capture(tree, ["first.norm"], lambda _, output: output.detach(), images(model))
    assert tuple(inner["first.norm"].shape) == (4, 16, 16, 6)


def test_calls_by_keras_are_not_changed_by_a_tree() -> None:
    """A tree in evaluation mode says nothing about the model when Keras runs it."""
    model = MODELS["blocks"]()
    torch_network(model).eval()
    before = [np.asarray(v) for v in model.non_trainable_variables]
    model(images(model), training=True)
    assert any(
        not np.array_equal(a, np.asarray(v))
        for a, v in zip(before, model.non_trainable_variables, strict=True)
    )


@ALL
def test_a_copy_is_a_model_of_its_own(name: str) -> None:
    model = MODELS[name]()
    tree = torch_network(model).eval()
    twin = copy.deepcopy(tree)
    x = images(model)
    with torch.no_grad():
        assert torch.equal(tree(x), twin(x))
        for parameter in twin.parameters():
            parameter.mul_(1.5)
        assert not same(tree(x), twin(x))
        assert same(twin(x), twin.keras_layer(x, training=False))
    assert not {id(p) for p in tree.parameters()} & {id(p) for p in twin.parameters()}
    assert [n for n, _ in tree.named_modules()] == [n for n, _ in twin.named_modules()]


@ALL
def test_other_tensors_can_stand_in(name: str) -> None:
    model = MODELS[name]()
    tree = torch_network(model).eval()
    x = images(model)
    doubled = {key: parameter * 1.5 for key, parameter in tree.named_parameters()}
    with torch.no_grad():
        plain = tree(x)
        other = functional_call(tree, doubled, (x,))
        assert not same(plain, other)
        assert torch.equal(tree(x), plain)
        for parameter in tree.parameters():
            parameter.mul_(1.5)
        assert same(tree(x), other)


def test_moving_the_tree_moves_the_model() -> None:
    model = residual()
    tree = torch_network(model).double()
    shared = {id(v._value) for v in model.variables}
    assert {id(t) for t in (*tree.parameters(), *tree.buffers())} == shared
    assert tree.get_buffer("norm.running_mean").dtype == torch.float64


def test_channels_first_images() -> None:
    model = mobilenet()
    tree = torch_network(model, channels_first=True).eval()
    x = images(model)
    with torch.no_grad():
        assert same(tree(x.permute(0, 3, 1, 2)), model(x))


@pytest.mark.parametrize("name", ["mobilenet", "separable", "nested", "residual"])
def test_images_are_not_copied_for_convolutions_and_outputs_are_equal(name: str) -> None:
    model = separable() if name == "separable" else MODELS[name]()
    tree = torch_network(model).eval()
    x = images(model)
    counts = []
    rows = []
    for run in (lambda: model(x, training=False), lambda: tree(x)):
        with torch.inference_mode(), profile() as seen:
            rows.append(run())
        counts.append(sum(event.count for event in seen.key_averages() if "clone" in event.key))
    assert torch.equal(*rows)
    assert counts[1] < counts[0]


def test_a_pass_holds_no_more_than_it_needs() -> None:
    """Keras's own loop holds the outputs of all layers until its end."""
    model = mobilenet()
    tree = torch_network(model).eval()
    x = images(model)
    peaks = []
    for run in (lambda: model(x, training=False), lambda: tree(x)):
        with (
            torch.inference_mode(),
            CountingMemory([*tree.parameters(), *tree.buffers(), x]) as memory,
        ):
            run()
        peaks.append(memory.peak)
    assert peaks[1] < 0.3 * peaks[0]


@pytest.mark.parametrize(
    "options",
    [
        {"padding": "same", "strides": 2},
        {"padding": "same", "dilation_rate": 2, "activation": "gelu"},
        {"padding": "same", "kernel_size": (2, 5)},
        {"padding": "valid", "strides": (1, 3), "groups": 3, "use_bias": False},
        {"padding": "same", "strides": 2, "depth_multiplier": 2, "activation": "relu"},
        {"padding": "same", "dtype": "mixed_bfloat16"},
        {"padding": "same", "data_format": "channels_first"},
    ],
    ids=str,
)
def test_the_tree_for_inference_computes_the_same(options: dict[str, Any]) -> None:
    options = {"kernel_size": 3, "name": "conv", **options}
    first = options.get("data_format") == "channels_first"
    inputs = keras.Input((6, 11, 9) if first else (11, 9, 6))
    depthwise = "depth_multiplier" in options
    x = keras.layers.DepthwiseConv2D(**options)(inputs) if depthwise else keras.layers.Conv2D(
        9, **options)(inputs)  # fmt: skip
    axis = 1 if first else -1
    x = keras.layers.BatchNormalization(axis=axis, scale=False, epsilon=0.1, name="one")(x)
    x = keras.layers.Add(name="twice")([x, keras.layers.ReLU(name="relu")(x)])
    shared = keras.layers.BatchNormalization(axis=axis, center=False, name="shared")
    model = settled(keras.Model(inputs, shared(shared(x))))
    tree = torch_network(model).eval()
    made = for_inference(tree)
    replaced = {name for name, part in made.named_children() if isinstance(part, ImageLayer)}
    assert replaced == {"one", "shared"} | (set() if "dtype" in options else {"conv"})
    images = torch.rand(3, *inputs.shape[1:])
    with torch.inference_mode():
        expected = tree(images)
        found = made(images)
    assert found.dtype == expected.dtype
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
    assert not any(isinstance(part, ImageLayer) for part in tree.modules())
    assert for_inference(torch.nn.Linear(2, 2)).__class__ is torch.nn.Linear


def separable() -> Any:
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.SeparableConv2D(8, 3, strides=2, padding="same", name="both")(inputs)
    x = keras.layers.MaxPooling2D(padding="same", name="largest")(x)
    return settled(keras.Model(inputs, keras.layers.Conv2D(4, 1, name="last")(x)))


def test_a_model_without_weights_is_refused() -> None:
    model = keras.Sequential([keras.layers.Dense(2)])
    with pytest.raises(BackboneError, match="has no weights yet"):
        torch_network(model)


def test_the_graph_keeps_its_word_where_fit_does_not() -> None:
    """keras issue 20285: ``fit`` overrides the ``training=False`` of ``base(x, training=False)``.

    The last assertion fails on a Keras that mends it: then the page on Keras has to say so.
    """
    model = nested()
    before = [np.asarray(v) for v in model.get_layer("base").non_trainable_variables]

    def moved() -> bool:
        after = model.get_layer("base").non_trainable_variables
        return any(not np.array_equal(a, np.asarray(v)) for a, v in zip(before, after, strict=True))

    as_module(model).train()
    as_module(model)(images(model))
    assert not moved()
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    model.fit(images(model).numpy(), np.array([0, 1, 0, 1]), verbose=0)
    assert moved()


def test_parts_say_what_they_compute() -> None:
    plain = torch_network(residual()).get_submodule("stem")
    assert isinstance(plain, KerasPart)
    described = json.dumps([str(x) for x in plain.__headstart_identity__()])
    assert "kernel_size" in described
    assert "Conv2D" in described


@pytest.mark.parametrize(
    ("backend", "said"),
    [("tensorflow", "KERAS_BACKEND=torch"), ("numpy", "KERAS_BACKEND=torch")],
)
def test_another_backend_is_one_line(backend: str, said: str) -> None:
    code = (
        "import os; os.environ['KERAS_BACKEND'] = " + repr(backend) + "\n"
        "from headstart import HeadstartError, load_backbone\n"
        "try:\n    load_backbone('keras/MobileNet')\n"
        "except HeadstartError as error:\n    print(error)\n"
        "print(os.environ['KERAS_BACKEND'])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    message, kept = done.stdout.strip().splitlines()
    assert said in message
    assert kept == backend


def test_headstart_imports_no_keras() -> None:
    code = (
        "import sys, headstart\n"
        "headstart.fit, headstart.freeze, headstart.load_backbone\n"
        "assert 'keras' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
