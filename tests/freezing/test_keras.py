"""The freeze contract on Keras models: in ``fit``, ``train_on_batch`` and loops of PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

import headstart
from headstart.core.errors import FreezeError
from headstart.freezing import FreezeHandle, drift, plan_freeze
from headstart.modules.keras_contract import as_module
from tests.keras_models import MODELS, images, keras, mobilenet, nested, side

PARTS = {
    "mobilenet": "conv_pw_3_bn",
    "blocks": "first",
    "residual": "norm",
    "attention": "attention",
    "nested": "base",
    "subclassed": "first",
}
"""A part to freeze in each model."""


def classified(name: str) -> Any:
    """Return a model of the table that ends in two classes."""
    if name == "subclassed":
        return MODELS[name]()
    model = MODELS[name]()
    x = model.outputs[0]
    x = keras.layers.GlobalAveragePooling2D()(x) if len(x.shape) == 4 else x
    return keras.Model(model.inputs, keras.layers.Dense(2, name="classes")(x))


def by_fit(model: Any, x: np.ndarray, y: np.ndarray) -> None:
    model.compile(keras.optimizers.Adam(0.01), _loss())
    model.fit(x, y, epochs=2, batch_size=4, verbose=0)


def by_train_on_batch(model: Any, x: np.ndarray, y: np.ndarray) -> None:
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), _loss())
    for _ in range(3):
        model.train_on_batch(x, y)


def by_torch_loop(model: Any, x: np.ndarray, y: np.ndarray) -> None:
    tree = as_module(model).train()
    trains = [p for p in tree.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trains, lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(tree(torch.tensor(x)), torch.tensor(y))
        loss.backward()
        optimizer.step()


def by_calling_the_model(model: Any, x: np.ndarray, y: np.ndarray) -> None:
    """A plain loop that never heard of the tree."""
    optimizer = torch.optim.SGD([v.value for v in model.trainable_variables], lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        output = model(torch.tensor(x), training=True)
        torch.nn.functional.cross_entropy(output, torch.tensor(y)).backward()
        optimizer.step()


LOOPS = {f.__name__: f for f in (by_fit, by_train_on_batch, by_torch_loop, by_calling_the_model)}
every = pytest.mark.parametrize("loop", LOOPS.values(), ids=list(LOOPS))


def _loss() -> Any:
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def data(model: Any) -> tuple[np.ndarray, np.ndarray]:
    return images(model, 8, seed=1).numpy(), np.array([0, 1] * 4)


def part_of(model: Any, name: str) -> Any:
    return dict(as_module(model).named_modules())[PARTS[name]]


def state(part: Any) -> dict[str, np.ndarray]:
    tensors = (*part.named_parameters(), *part.named_buffers())
    return {key: tensor.detach().numpy().copy() for key, tensor in tensors}


def moved(part: Any, before: dict[str, np.ndarray]) -> set[str]:
    return {key for key, value in state(part).items() if not np.array_equal(value, before[key])}


@every
@pytest.mark.parametrize("name", PARTS)
def test_a_frozen_part_does_not_move(name: str, loop: Any) -> None:
    model = classified(name)
    handle = headstart.freeze(model, {PARTS[name]: "frozen"})
    before = state(part_of(model, name))
    whole = state(as_module(model))
    loop(model, *data(model))
    assert not moved(part_of(model, name), before)
    assert moved(as_module(model), whole)
    assert handle.verify().holds


@pytest.mark.parametrize("name", PARTS)
def test_without_a_contract_it_moves(name: str) -> None:
    """The control: the loops do train these parts."""
    model = classified(name)
    before = state(part_of(model, name))
    by_fit(model, *data(model))
    assert moved(part_of(model, name), before)


@every
def test_statistics_stay_while_the_base_trains(loop: Any) -> None:
    """Thread 001: unfreeze, with batch norm still in inference mode."""
    model = classified("mobilenet")
    handle = headstart.freeze(model, "trainable-fixed-norm")
    before = state(as_module(model))
    loop(model, *data(model))
    found = moved(as_module(model), before)
    assert found
    assert not {key for key in found if "running" in key}
    assert handle.verify().holds


def test_fit_alone_moves_statistics_that_training_false_should_keep() -> None:
    """keras issue 20285, as long as it is in the released Keras."""
    model = nested()
    before = state(as_module(model).get_submodule("base"))
    model.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
    x, y = data(model)
    model.fit(x, y, verbose=0)
    found = moved(as_module(model).get_submodule("base"), before)
    assert {key for key in found if "running" in key}


def test_staged_unfreezing_and_release() -> None:
    model = classified("mobilenet")
    x, y = data(model)
    headstart.freeze(model, "frozen")
    assert not model.trainable_variables
    headstart.freeze(model, {"": "frozen", "classes": "trainable"})
    assert [v.path for v in model.trainable_variables] == ["classes/kernel", "classes/bias"]
    before = state(as_module(model))
    by_fit(model, x, y)
    assert moved(as_module(model), before) == {"classes.kernel", "classes.bias"}
    handle = headstart.freeze(model, {"conv1*": "frozen"})
    assert len(model.trainable_variables) > 60
    handle.release()
    assert all(layer.trainable for layer in model.layers)
    before = state(as_module(model))
    by_fit(model, x, y)
    assert "conv1_bn.running_mean" in moved(as_module(model), before)


def test_release_restores_trainable() -> None:
    model = classified("mobilenet")
    model.get_layer("conv1").trainable = False
    model.get_layer("conv_pw_1_bn").trainable = False
    before = {layer.name: layer.trainable for layer in model.layers}
    trained = [v.path for v in model.trainable_variables]
    handle = headstart.freeze(model, {"": "trainable-fixed-norm", "classes": "frozen"})
    assert [v.path for v in model.trainable_variables] != trained
    handle.release()
    assert {layer.name: layer.trainable for layer in model.layers} == before
    assert [v.path for v in model.trainable_variables] == trained


def test_batch_statistics_without_updates() -> None:
    """Normalise by the batch, and leave the running statistics alone."""
    model = classified("mobilenet")
    policy = headstart.FreezePolicy("frozen", "batch", False, "off")
    handle = headstart.freeze(model, {"": policy, "classes": "trainable"})
    tree = as_module(model).train()
    x = torch.tensor(data(model)[0])
    before = state(tree)
    in_training, alone = tree(x), torch.cat([tree(x[i : i + 2]) for i in range(0, 8, 2)])
    assert not torch.allclose(in_training, alone, atol=1e-5)
    assert not {key for key in moved(tree, before) if "running" in key}
    handle.release()
    assert as_module(model).get_submodule("conv1_bn").keras_layer.momentum == 0.99


def test_parts_by_layer_and_by_keras_name() -> None:
    model = nested()
    base = model.get_layer("base")
    by_object = plan_freeze(model, {base: "frozen"})
    assert [row.part for row in by_object.rows] == ["base"]
    dotted = mobilenet(name="mobilenet_0.25_32")
    inputs = keras.Input((32, 32, 3))
    outer = keras.Model(inputs, dotted(inputs))
    assert [r.part for r in plan_freeze(outer, {"mobilenet_0.25_32": "frozen"}).rows]
    with pytest.raises(FreezeError, match="selects no part"):
        headstart.freeze(model, {"bse": "frozen"})


def test_the_plan_names_norms_and_chance() -> None:
    rows = {r.part: r for r in plan_freeze(MODELS["blocks"](), {"first": "frozen"}).rows}
    assert "1 running, fixed" in rows["first"].norms
    assert "off" in rows["first"].chance


def test_handles_and_guards_take_the_model() -> None:
    model = classified("blocks")
    headstart.freeze(model, {"first": "frozen"})
    assert FreezeHandle.of(model).verify().holds
    with headstart.guard(model) as report:
        by_torch_loop(model, *data(model))
    assert report.steps == 3
    model.get_layer("first").conv.kernel.assign_add(
        np.ones(tuple(model.get_layer("first").conv.kernel.shape))
    )
    with pytest.raises(FreezeError, match=r"first\.conv\.kernel"):
        FreezeHandle.of(model).verify()


def test_reestimated_statistics_are_those_of_one_batch() -> None:
    model = mobilenet()
    x = images(model, 12, seed=2)
    headstart.reestimate(model, list(x.split(4)))
    tree = as_module(model)
    batch = tree.train()(x).detach()
    headstart.reestimate(model, [x])  # `train` has moved them
    assert torch.allclose(tree.eval()(x), batch, rtol=1e-3, atol=1e-4)
    found = drift(model, [x])
    assert len(found) == 27
    assert max(layer.mean_shift for layer in found) < 1e-3


def test_a_dropout_in_a_frozen_part_is_off_in_fit() -> None:
    model = classified("blocks")
    headstart.freeze(model, {"": "frozen", "classes": "trainable"})
    x = torch.tensor(data(model)[0])
    assert side(model) == 16
    assert torch.equal(model(x, training=True), model(x, training=False))
