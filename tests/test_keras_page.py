"""The examples of docs/keras.md run, its table is measured, and thread 001 works end to end."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

import headstart
from headstart import load_data
from headstart.core.errors import DataError
from headstart.modules.keras import torch_network
from tests.keras_models import LAST, images, keras, mobilenet, real_mobilenet

ROOT = Path(__file__).resolve().parent.parent


def example() -> ModuleType:
    path = ROOT / "examples" / "keras_transfer_learning.py"
    spec = importlib.util.spec_from_file_location("keras_transfer_learning", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_examples_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path))
    text = (ROOT / "docs" / "keras.md").read_text(encoding="utf-8")
    code = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(code) == 3
    names: dict[str, Any] = {}
    for number, block in enumerate(code):
        exec(compile(block, f"docs/keras.md, example {number}", "exec"), names)
    assert names["classifier"].output_shape == (None, 2)


def test_trainable_false_leaves_dropout_on() -> None:
    inputs = keras.Input((32, 32, 3))
    x = mobilenet()(inputs)
    x = keras.layers.Dropout(0.5, seed=0, name="drop")(x)
    model = keras.Model(inputs, x)
    model.trainable = False
    batch = images(model, 2)
    assert not torch.equal(model(batch, training=True), model(batch, training=True))
    headstart.freeze(model, "frozen")
    assert torch.equal(model(batch, training=True), model(batch, training=True))


def test_a_plain_call_augments_and_predict_does_not() -> None:
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.RandomZoom(0.3, seed=1, name="zoom")(inputs)
    model = keras.Model(inputs, keras.layers.RandomFlip(seed=0, name="flip")(x))
    batch = torch.rand(4, 16, 16, 3)
    assert not torch.equal(model(batch), batch)
    assert torch.equal(model(batch, training=False), batch)
    assert np.array_equal(model.predict(batch.numpy(), verbose=0), batch.numpy())
    assert torch.equal(torch_network(model).eval()(batch), batch)


def test_pytorch_modes_say_nothing_to_keras() -> None:
    model = mobilenet()
    before = [np.asarray(v) for v in model.non_trainable_variables]
    model.eval()
    model(images(model), training=True)
    after = [np.asarray(v) for v in model.non_trainable_variables]
    assert not all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))


class Batches(keras.utils.PyDataset):  # type: ignore[misc]
    def __init__(self, x: np.ndarray, y: np.ndarray, size: int) -> None:
        super().__init__()
        self.x, self.y, self.size = x, y, size

    def __len__(self) -> int:
        return -(-len(self.x) // self.size)

    def __getitem__(self, i: int) -> Any:
        part = slice(i * self.size, (i + 1) * self.size)
        return self.x[part], self.y[part]


def test_batches_of_keras_are_data() -> None:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 256, (21, 8, 8, 3), dtype="uint8")
    y = np.arange(21) % 3
    plain = load_data((x, y), seed=0)
    for labels in (y, y[:, None].astype("float32"), np.eye(3)[y]):
        split = load_data(Batches(x, labels, 4), seed=0)
        assert split.train.ids == plain.train.ids
        assert np.array_equal(split.train.labels, plain.train.labels)
    divided = load_data({"train": Batches(x[:12], y[:12], 5), "test": Batches(x[12:], y[12:], 5)})
    assert (len(divided.train), len(divided.test)) == (12, 9)

    class Wrong(Batches):
        def __getitem__(self, i: int) -> Any:
            return self.x

    with pytest.raises(DataError, match=r"expected \(x, y\)"):
        load_data(Wrong(x, y, 4))


class Streamed:
    """What a ``tf.data.Dataset`` is read by; TensorFlow is not among the tests' packages."""

    def __init__(self, batches: list[Any], cardinality: int = -2) -> None:
        self.batches, self.number = batches, cardinality

    def as_numpy_iterator(self) -> Any:
        return iter(self.batches)

    def cardinality(self) -> int:
        return self.number


def test_a_tf_data_set_is_read_by_the_batch() -> None:
    x = np.random.default_rng(0).integers(0, 256, (21, 8, 8, 3), dtype="uint8")
    y = np.arange(21) % 3
    batches = [(x[:8], y[:8]), (x[8:16], y[8:16]), (x[16:], y[16:])]
    plain = load_data((x, y), seed=0)
    split = load_data(Streamed(batches), seed=0)
    assert split.train.ids == plain.train.ids
    assert np.array_equal(split.train.labels, plain.train.labels)
    divided = load_data({"train": Streamed(batches[:2], 2), "test": Streamed(batches[2:], 1)})
    assert (len(divided.train), len(divided.test)) == (16, 5)


@pytest.mark.parametrize(
    ("batches", "cardinality", "said"),
    [
        ([], 0, "has no batches"),
        ([(np.zeros((4, 8, 8, 3)), np.zeros(4))], -1, "never ends; remove its .repeat()"),
        ([(np.zeros((8, 8, 3)), np.int64(1))], 1, r"single items.*use its \.batch\(32\)"),
        ([np.zeros((4, 8, 8, 3))], 1, r"a ndarray, expected \(x, y\)"),
        ([(np.zeros((2, s, 8, 3)), np.zeros(2)) for s in (8, 9)], 2, "differ in shape"),
    ],
)
def test_what_cannot_be_read_of_a_tf_data_set(
    batches: list[Any], cardinality: int, said: str
) -> None:
    with pytest.raises(DataError, match=said) as raised:
        load_data(Streamed(batches, cardinality))
    assert "\n" not in str(raised.value)


def test_without_tensorflow_keras_says_what_its_reader_needs(tmp_path: Path) -> None:
    """The page says to pass the folder itself."""
    if importlib.util.find_spec("tensorflow") is not None:
        pytest.skip("TensorFlow is installed")
    (tmp_path / "a").mkdir()
    keras.utils.array_to_img(np.zeros((8, 8, 3))).save(tmp_path / "a" / "1.png")
    with pytest.raises(ImportError, match="requires the tensorflow module"):
        keras.utils.image_dataset_from_directory(tmp_path, verbose=False)


@pytest.mark.real
@pytest.mark.slow
def test_thread_001_end_to_end(shared_data: Path, tmp_path: Path) -> None:
    """Augmentation, rescaling, frozen base, pooling, dropout, Dense(1); then staged unfreezing."""
    keras.utils.set_random_seed(0)
    whole = real_mobilenet(shared_data / "weights" / "mobilenetv1_imagenet.safetensors")
    base = keras.Model(whole.inputs, whole.get_layer(LAST).output, name="base")
    script = example()
    folder = shared_data / "hymenoptera"
    training, test = script.frame_of(folder / "train"), script.frame_of(folder / "val")
    before = {v.path: np.asarray(v) for v in base.variables}
    model, accuracies = script.run(base, training, test, thaw=("conv_pw_12*",))
    assert accuracies[0] >= 0.92
    moved = {v.path for v in base.variables if not np.array_equal(before[v.path], np.asarray(v))}
    assert moved == {"conv_pw_12/kernel", "conv_pw_12_bn/gamma", "conv_pw_12_bn/beta"}
    assert isinstance(model, keras.Model)
    # The same items, as a data frame, for headstart's own features and heads.
    frames = {"train": training, "test": test}
    backbone = headstart.load_backbone(
        base, pooling="avg", mean=0.5, std=0.5, resize="shortest", crop_fraction=0.875
    )
    run = headstart.fit(
        pd.concat([frame.assign(split=name) for name, frame in frames.items()]),
        backbone, image_column="file", cache=tmp_path, write=False,
    )  # fmt: skip
    assert run.accuracy >= 0.92
