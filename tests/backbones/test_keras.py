"""Keras backbones: loading, preprocessing, layers, identity, blocks, and everything behind them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import headstart
from headstart import HeadstartError, load_backbone, load_data
from headstart.backbones import Backbone
from headstart.backbones.families.keras_models import _SIZES, _applications
from headstart.backbones.groups import block_groups
from headstart.commands import open_run
from headstart.core.errors import BackboneError, HeadError
from headstart.core.progress import SilentReporter
from headstart.data import load_items as items_of
from headstart.export.keras_model import keras_model
from headstart.extraction import extract
from headstart.heads.prepared import behind, shrunk_preparation
from headstart.prefix import Cut, find_cut
from headstart.sklearn import FeatureExtractor, HeadClassifier
from tests.keras_models import LAST, MODELS, Block, keras, mobilenet, residual, settled

QUIET = SilentReporter()
INPUTS = {"mean": 0.5, "std": 0.5}
NAMES = [name for name in MODELS if name != "nested"]


def backbone_of(name: str, **options: Any) -> Backbone:
    return load_backbone(MODELS[name](), size=options.pop("size", None) or _side(name), **INPUTS)


def _side(name: str) -> int:
    return 32 if name in ("mobilenet", "nested") else 16


def squares(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Images that are brighter at the left or at the right."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, count)
    x = rng.integers(0, 90, (count, 16, 16, 3))
    for image, label in zip(x, labels, strict=True):
        image[:, 8:] += 120 * label
        image[:, :8] += 120 * (1 - label)
    return x.astype("uint8"), labels


@pytest.mark.parametrize("name", NAMES)
def test_rows_of_every_layer_are_means_over_positions(name: str) -> None:
    backbone = backbone_of(name)
    probe = backbone.probe(3)
    assert backbone.layers
    for layer in backbone.layers:
        with torch.no_grad():
            whole = backbone.at(layer.name, "none").features(probe)
            at = backbone.at(layer.name, "avg")
            if at.layout.channels is None:
                with pytest.raises(BackboneError, match="channels of this layer's output"):
                    at.features(probe)
                continue
            rows = at.features(probe)
        expected = whole.mean(tuple(range(1, whole.ndim - 1))) if whole.ndim > 2 else whole
        assert torch.allclose(rows, expected, rtol=1e-4, atol=1e-5), layer.name


@pytest.mark.parametrize("name", [*NAMES, "nested"])
def test_blocks_and_groups(name: str) -> None:
    backbone = backbone_of(name)
    names = {name for name, _ in backbone.module.named_modules()}
    assert backbone.blocks
    assert set(backbone.blocks) <= names
    groups = block_groups(backbone.module)
    grouped = [key for group in groups for key in group.parameters]
    assert sorted(grouped) == sorted(key for key, _ in backbone.module.named_parameters())
    assert len(groups) > 1 or name == "subclassed"


def test_groups_follow_the_graph() -> None:
    groups = block_groups(load_backbone(mobilenet(), **INPUTS).module)
    assert len(groups) == 27
    assert groups[0].modules == ("conv1", "conv1_bn")
    residual_groups = block_groups(load_backbone(residual(), size=16, **INPUTS).module)
    # The skip keeps norm and branch together; the norm behind the sum belongs to them.
    assert [sorted({p.split(".")[0] for p in g.parameters}) for g in residual_groups] == [
        ["stem"],
        ["branch", "group", "norm"],
        ["dense"],
    ]


def test_what_is_behind_the_layer_is_no_part_of_the_identity() -> None:
    one, other = mobilenet(), mobilenet()
    assert one is not other
    a = load_backbone(one, layer="conv_pw_3_relu", **INPUTS)
    b = load_backbone(other, layer="conv_pw_3_relu", **INPUTS)
    assert a.identity() == b.identity()
    other.get_layer("conv_pw_4").kernel.assign(0 * other.get_layer("conv_pw_4").kernel)
    assert a.identity() == b.identity()
    other.get_layer("conv_pw_3_bn").moving_mean.assign_add(np.ones(32))
    assert a.identity() != b.identity()


@pytest.mark.parametrize(
    "change", [{"epsilon": 0.1}, {"strides": (2, 2)}, {"activation": "tanh"}, {"rate": 0.9}]
)
def test_the_configuration_of_a_layer_is_part_of_the_identity(change: dict[str, Any]) -> None:
    def model(**options: Any) -> Any:
        inputs = keras.Input((16, 16, 3))
        conv = {k: v for k, v in options.items() if k in ("strides", "activation")}
        norm = {k: v for k, v in options.items() if k == "epsilon"}
        x = keras.layers.Conv2D(4, 3, name="conv", **conv)(inputs)
        x = keras.layers.BatchNormalization(name="norm", **norm)(x)
        x = Block(4, rate=options.get("rate", 0.5), name="block")(x)
        return settled(keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="p")(x)))

    plain, again, changed = (
        load_backbone(model(**options), size=16, **INPUTS).identity()
        for options in ({}, {}, change)
    )
    assert plain == again
    assert plain != changed


def test_preprocessing_is_that_of_preprocess_input() -> None:
    """In all three modes of Keras, and in networks that scale their input themselves."""
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("float32")
    for name, module in [
        ("MobileNetV2", "mobilenet_v2"), ("DenseNet121", "densenet"), ("VGG16", "vgg16"),
        ("EfficientNetV2B0", "efficientnet_v2"),
    ]:  # fmt: skip
        options = {"weights": None, "input_shape": (32, 32, 3)}
        backbone = load_backbone(f"keras/{name}", model_args=options)
        function = getattr(keras.applications, module).preprocess_input
        expected = np.asarray(function(x.copy())).transpose(0, 3, 1, 2)
        found = backbone.inputs.normalise(torch.tensor(x.astype("uint8").transpose(0, 3, 1, 2)))
        assert np.allclose(found.numpy(), expected, atol=2e-4), name


@pytest.mark.slow  # builds every network once
def test_default_sizes_are_those_of_the_applications() -> None:
    for name, make in _applications(keras).items():
        wanted = _SIZES.get(name, 224)
        if wanted > 331:
            continue  # gigabytes of random weights
        if name == "NASNetMobile":
            continue  # Keras refuses to build it on PyTorch
        shape = make(weights=None, include_top=True).input_shape
        assert shape[1] in (wanted, None), name
        keras.backend.clear_session()


def test_sources_and_refusals(tmp_path: Path) -> None:
    with pytest.raises(BackboneError, match="the nearest are keras/MobileNet"):
        load_backbone("keras/MobilNet")
    with pytest.raises(BackboneError, match="there is no weights file"):
        load_backbone(str(tmp_path / "none.keras"))
    (tmp_path / "bad.keras").write_bytes(b"nonsense")
    with pytest.raises(BackboneError, match=r"cannot load bad\.keras"):
        load_backbone(str(tmp_path / "bad.keras"))
    with pytest.raises(HeadstartError, match="mean"):
        load_backbone(mobilenet())


def test_a_file_that_would_run_code_is_refused(tmp_path: Path) -> None:
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Lambda(lambda x: x * 2, name="double")(inputs)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(x))
    model.save(tmp_path / "lambda.keras")
    with pytest.raises(BackboneError, match="without running code from it"):
        load_backbone(str(tmp_path / "lambda.keras"), **INPUTS)


def test_fit_predict_and_to_keras_from_a_file(tmp_path: Path) -> None:
    mobilenet(pooling="avg").save(tmp_path / "net.keras")
    data = {"train": squares(60), "test": squares(30, 1)}
    source = str(tmp_path / "net.keras")
    run = headstart.fit(
        data, source, out=tmp_path / "run", cache=tmp_path / "cache", reporter=QUIET, **INPUTS
    )
    assert run.accuracy > 0.9
    again = headstart.fit(
        data, source, write=False, cache=tmp_path / "cache", reporter=QUIET, **INPUTS
    )
    assert again.cache.misses == 0
    saved = open_run(tmp_path / "run")
    assert saved.spec.source == "keras/model"
    assert saved.spec.weights == source
    x = data["test"][0]
    predictions = headstart.predict(x, saved, cache=tmp_path / "cache", reporter=QUIET)
    model = run.to_keras()
    pixels = np.stack(
        [run.backbone.inputs.sample(image).transpose(1, 2, 0) for image in load_items(x)]
    )
    probabilities = model.predict(pixels.astype("float32"), verbose=0)
    assert np.allclose(probabilities, predictions.probabilities, atol=1e-4)
    model.save(tmp_path / "whole.keras")
    loaded = keras.saving.load_model(tmp_path / "whole.keras")
    assert np.allclose(loaded.predict(pixels.astype("float32"), verbose=0), probabilities)


@pytest.mark.parametrize("prepared", [False, True])
@pytest.mark.parametrize("kind", ["linear", "ridge", "lda", "prototype"])
def test_a_keras_model_with_every_head_that_it_can_be(kind: str, prepared: bool) -> None:
    backbone = load_backbone(mobilenet(pooling="avg"), **INPUTS)
    x, y = squares(40)
    x = x.repeat(2, axis=1).repeat(2, axis=2)
    rows = extract(backbone, items_of(x)).features[0]
    preparation = shrunk_preparation(rows)
    given = preparation(rows) if prepared else rows
    head = HeadClassifier(head=kind).fit(given, y).head_
    head = behind(preparation, head) if prepared else head
    for given in (head, head.with_thresholds(np.array([0.2, 0.8]))):
        found = keras_model(backbone, given).predict(x.astype("float32"), verbose=0)
        np.testing.assert_allclose(found, given.predict_proba(rows), atol=1e-4)


def test_what_head_has_no_keras_layers_is_said() -> None:
    backbone = load_backbone(mobilenet(pooling="avg"), **INPUTS)
    x, y = squares(40)
    head = HeadClassifier(head="knn").fit(extract(backbone, items_of(x)).features[0], y).head_
    with pytest.raises(HeadError, match="a head of kind 'neighbours' has no Keras layers"):
        keras_model(backbone, head)


def load_items(x: np.ndarray) -> list[Any]:
    from headstart.data import load_items as load

    items = load(x).items
    return [items.content(number) for number in range(len(x))]


def test_a_model_in_memory_is_not_changed_by_fit(tmp_path: Path) -> None:
    model = mobilenet()
    before = [np.asarray(v) for v in model.variables]
    flags = [layer.trainable for layer in model.layers]
    headstart.fit(
        {"train": squares(40), "test": squares(20, 1)}, model, layer="conv_pw_6_relu",
        cache=tmp_path, write=False, reporter=QUIET, **INPUTS,
    )  # fmt: skip
    assert all(
        np.array_equal(a, np.asarray(v)) for a, v in zip(before, model.variables, strict=True)
    )
    assert [layer.trainable for layer in model.layers] == flags


@pytest.mark.slow
def test_sweep_compare_and_finetune(tmp_path: Path) -> None:
    model = mobilenet(pooling="avg")
    model.save(tmp_path / "net.keras")
    source = str(tmp_path / "net.keras")
    data = {"train": squares(80), "test": squares(40, 1)}
    common = {"cache": tmp_path / "cache", "reporter": QUIET, **INPUTS}
    swept = headstart.sweep(
        data, source, layers=("conv_pw_3_relu", "conv_pw_6_relu"), write=False, **common
    )
    assert swept.run is not None
    assert swept.run.accuracy > 0.9
    comparison = headstart.compare(data, source, repeats=2, write=False, **common)
    names = {outcome.name for outcome in comparison.comparison.outcomes}
    assert {"eval", "train", "reestimated"} <= names
    tuned = headstart.finetune(
        data, source, recipe="full", epochs=6, out=tmp_path / "tuned", baselines=False, **common
    )
    made = tuned.backbone.module.keras_layer
    assert isinstance(made, keras.Model)
    pairs = zip(model.variables, made.variables, strict=True)
    changed = {v.path for v, w in pairs if not np.array_equal(np.asarray(v), np.asarray(w))}
    assert any(path.endswith("kernel") for path in changed)
    assert not any("moving" in path for path in changed)  # batch norm in inference mode


def test_a_functional_model_is_cut_at_layers_of_its_graph() -> None:
    backbone = load_backbone(mobilenet(pooling="avg"), **INPUTS)
    frozen = dict.fromkeys(("conv1*", "conv_*_1*", "conv_*_2*", "conv_*_3*"), "frozen")
    handle = headstart.freeze(backbone.module, {"": "trainable-fixed-norm", **frozen})
    cut = find_cut(backbone.module, backbone.probe(4).args, handle, measure=False)
    assert isinstance(cut, Cut)
    print(cut)


@pytest.mark.real
def test_real_weights_give_the_features_of_timm(shared_data: Path) -> None:
    from tests.keras_models import real_mobilenet, timm_mobilenet

    weights = shared_data / "weights" / "mobilenetv1_imagenet.safetensors"
    timm = timm_mobilenet(weights)
    ours = load_backbone(real_mobilenet(weights), layer=LAST, inputs=timm.inputs)
    split = load_data(shared_data / "hymenoptera").test
    samples = [timm.inputs.sample(split.items.content(i)) for i in range(0, 150, 10)]
    batch = timm.inputs.finish(timm.inputs.collate(samples))
    with torch.no_grad():
        expected, found = timm.features(batch), ours.features(batch)
    assert float((expected - found).abs().max() / expected.abs().max()) < 1e-4


@pytest.mark.real
@pytest.mark.slow
def test_real_weights_reach_the_same_accuracy(shared_data: Path, tmp_path: Path) -> None:
    from tests.keras_models import real_mobilenet, timm_mobilenet

    weights = shared_data / "weights" / "mobilenetv1_imagenet.safetensors"
    timm = timm_mobilenet(weights)
    ours = load_backbone(real_mobilenet(weights), layer=LAST, inputs=timm.inputs)
    runs = [
        headstart.fit(
            shared_data / "hymenoptera", backbone, cache=tmp_path, write=False, reporter=QUIET
        )
        for backbone in (timm, ours)
    ]
    assert runs[0].accuracy == runs[1].accuracy
    assert runs[0].accuracy > 0.93


def _with_inputs(first: Any, **options: Any) -> Any:
    inputs = keras.Input((16, 16, 3))
    x = keras.layers.Conv2D(4, 3, name="conv")(first(inputs))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D(name="rows")(x), **options)


@pytest.mark.parametrize(
    "first",
    [
        keras.layers.Rescaling(1 / 127.5, offset=-1, name="first"),
        keras.layers.Normalization(mean=[100.0] * 3, variance=[2500.0] * 3, name="first"),
    ],
    ids=["rescaling", "normalization"],
)
def test_a_model_that_scales_its_inputs_gets_pixels(first: Any, tmp_path: Path) -> None:
    _with_inputs(first).save(tmp_path / "own.keras")
    backbone = load_backbone(str(tmp_path / "own.keras"))
    assert (backbone.inputs.scale, backbone.inputs.std) == (1, (1, 1, 1))
    assert any("so it gets pixels of 0 to 255" in note for note in backbone.notes)
    assert not any("scaled twice" in note for note in backbone.notes)
    for given in (INPUTS, {"scale": 1 / 255, "mean": 0, "std": 1}):
        twice = load_backbone(str(tmp_path / "own.keras"), **given)
        assert any("inputs are scaled twice: 'first'" in note for note in twice.notes)
    plain = load_backbone(_with_inputs(keras.layers.Rescaling(2, offset=-1)), **INPUTS)
    assert not any("scale" in note for note in plain.notes)


def test_several_inputs_and_outputs_are_said() -> None:
    a, b = keras.Input((16, 16, 3), name="a"), keras.Input((16, 16, 3), name="b")
    conv = keras.layers.Conv2D(4, 3, name="conv")
    rows = keras.layers.GlobalAveragePooling2D(name="rows")(conv(a))
    two = keras.Model([a, b], keras.layers.Add(name="sum")([conv(a), conv(b)]))
    with pytest.raises(
        BackboneError, match=r"takes 2 inputs \(a, b\), and a backbone takes only images"
    ):
        load_backbone(two, **INPUTS)
    (note,) = load_backbone(keras.Model(a, [rows, conv(a)]), **INPUTS).notes
    assert "is used as the feature" in note


def test_a_head_by_keras_on_the_cached_features(tmp_path: Path) -> None:
    base = mobilenet(pooling="avg")
    extractor = FeatureExtractor(base, cache=tmp_path, backbone_args=INPUTS)
    x, y = squares(60)
    rows = extractor.fit_transform(x)
    keras.utils.set_random_seed(0)
    scale = keras.layers.Normalization()
    scale.adapt(rows)
    head = keras.Sequential([keras.Input((rows.shape[1],)), scale, keras.layers.Dense(1)])
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    head.compile(
        keras.optimizers.Adam(0.05), loss, metrics=[keras.metrics.BinaryAccuracy(threshold=0)]
    )
    head.fit(rows, y, epochs=60, verbose=0)
    test, truth = squares(30, 1)
    assert head.evaluate(extractor.transform(test), truth, verbose=0)[1] > 0.9
    assert np.array_equal(extractor.transform(x), rows)
