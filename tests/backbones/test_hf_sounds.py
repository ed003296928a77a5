"""Models of sounds compute what transformers computes for each sound alone."""

from __future__ import annotations

import copy
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from headstart.backbones import load_backbone
from headstart.backbones.groups import block_groups
from headstart.cache.computing import describe_space
from headstart.core.errors import BackboneError, ConfigError, DataError
from headstart.data.items import TextItems
from headstart.data.sounds import Sounds
from headstart.extraction import Extraction, extract
from headstart.extraction.pipeline import Extractor
from headstart.extraction.plan import AS_WRITTEN
from tests.sound_models import (
    KINDS,
    RATE,
    chirp,
    encoded,
    noise,
    save_model,
    split_of,
    tone,
)

LENGTHS = (0.31, 1.0, 0.5, 0.9, 0.31, 0.5, 1.0)
WAVES = [tone(s, 200 + 150 * i, seed=i) for i, s in enumerate(LENGTHS)]


def rate_of(kind: str) -> int:
    return 48_000 if kind == "clap" else RATE


def rows(folder: Path, contents: list[bytes], batch: int = 64, **options: Any) -> NDArray[Any]:
    backbone = load_backbone(f"hf/{folder}", **options)
    return extract(backbone, split_of(contents), settings=Extraction(batch)).features[0]


def own_output(folder: Path, wave: NDArray[Any]) -> NDArray[Any]:
    """Return what transformers gives for one sound alone: states ``(frames, d)``, or its vector."""
    from transformers import AutoFeatureExtractor, AutoModel

    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    extractor = AutoFeatureExtractor.from_pretrained(folder)
    found = extractor([wave], sampling_rate=extractor.sampling_rate, return_tensors="pt")
    with torch.inference_mode():
        if hasattr(model, "get_audio_features"):
            return model.get_audio_features(**found).pooler_output[0].numpy()
        if getattr(model.config, "is_encoder_decoder", False):
            model = model.get_encoder()
        if model.config.model_type == "audio-spectrogram-transformer":
            return model(**found).pooler_output[0].numpy()
        states = model(**found)[0][0]
        if "input_features" in found and "attention_mask" in found:  # the last pair may be half
            states = states[found["attention_mask"][0].bool()]
        return states.numpy()


def expected_row(kind: str, folder: Path, wave: NDArray[Any]) -> NDArray[Any]:
    found = own_output(folder, wave)
    if kind == "whisper":  # 160 samples a frame of the spectrum, two frames a position
        found = found[: -(-len(wave) // 320)]
    return found.mean(0) if found.ndim == 2 else found


ALIKE = ("wav2vec2-layer", "hubert", "wavlm")
"""Kinds whose code is much like another's: CI walks them among the slow tests."""
WALK = [pytest.param(k, marks=pytest.mark.slow) if k in ALIKE else k for k in KINDS]


@pytest.mark.parametrize("kind", WALK)
def test_no_row_depends_on_padding_or_on_other_sounds(kind: str, tmp_path: Path) -> None:
    folder, rate = save_model(tmp_path / "m", kind), rate_of(kind)
    waves = [tone(s, 200 + 150 * i, rate, i) for i, s in enumerate(LENGTHS)]
    files = [encoded(wave, rate, subtype="FLOAT") for wave in waves]
    one = rows(folder, files)
    scale = np.abs(one).max()
    expected = np.stack([expected_row(kind, folder, wave) for wave in waves])
    np.testing.assert_allclose(one, expected, atol=1e-5 * scale)
    for batch in (1, 3):
        np.testing.assert_allclose(rows(folder, files, batch), one, atol=5e-6 * scale)
    order = np.random.default_rng(0).permutation(len(files))
    again = rows(folder, [files[i] for i in order], 4)
    np.testing.assert_allclose(again, one[order], atol=5e-6 * scale)


def test_padding_changes_the_rows_of_a_group_norm(tmp_path: Path) -> None:
    """The trap, shown on the library itself: why no batch is padded."""
    from transformers import AutoFeatureExtractor, AutoModel

    folder = save_model(tmp_path / "m")
    model, extractor = (
        AutoModel.from_pretrained(folder).eval(),
        AutoFeatureExtractor.from_pretrained(folder),
    )
    found = extractor([WAVES[0], WAVES[1]], sampling_rate=RATE, return_tensors="pt", padding=True)
    with torch.inference_mode():
        padded = model(**found)[0][0].numpy()
    alone = own_output(folder, WAVES[0])
    assert np.abs(padded[: len(alone)] - alone).max() > 0.02 * np.abs(alone).max()


@pytest.mark.parametrize("kind", WALK)
def test_layers_are_means_over_time(kind: str, tmp_path: Path) -> None:
    folder, rate = save_model(tmp_path / "m", kind), rate_of(kind)
    waves = [tone(s, 300 * (i + 1), rate, i) for i, s in enumerate((0.4, 0.8, 0.4))]
    files = [encoded(wave, rate, subtype="FLOAT") for wave in waves]
    backbone = load_backbone(f"hf/{folder}")
    assert len(backbone.blocks) == (2 if kind == "clap" else 3)
    cuts = [backbone.at(name) for name in backbone.blocks]
    found = extract(cuts, split_of(files), settings=Extraction(2))
    assert all(np.isfinite(each).all() and each.shape[1] == 32 for each in found.features)
    assert not np.allclose(found.features[0], found.features[-1])
    if kind in ("clap", "ast"):
        return
    whole = rows(folder, files, pooling="avg")
    expected = np.stack([expected_row(kind, folder, wave) for wave in waves])
    np.testing.assert_allclose(whole, expected, atol=1e-5 * np.abs(expected).max())


@pytest.mark.parametrize("kind", ["wav2vec2", "whisper", "ast", "clap"])
def test_a_row_of_several_windows_is_their_mean(kind: str, tmp_path: Path) -> None:
    folder, rate = save_model(tmp_path / "m", kind), rate_of(kind)
    wave = np.concatenate([tone(0.5, 300, rate), chirp(0.5, 1, rate), noise(0.5, 2, rate)])
    third = len(wave) // 3
    parts = [wave[i * third : (i + 1) * third] for i in range(3)]
    files = [encoded(part, rate, subtype="FLOAT") for part in (wave, *parts)]
    found = rows(folder, [files[0], files[0]], seconds=0.5, windows=3)[0]
    expected = rows(folder, files[1:], seconds=0.5).mean(axis=0)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    first = rows(folder, [files[0]], seconds=0.5)[0]
    np.testing.assert_allclose(first, rows(folder, files[1:2])[0], atol=1e-5)
    if kind in ("wav2vec2", "whisper"):  # at a layer, too, and without what fills the window up
        layer = load_backbone(f"hf/{folder}").blocks[1]
        joined = rows(folder, [files[0]], seconds=0.5, windows=3, layer=layer)[0]
        alone = rows(folder, files[1:], seconds=0.5, layer=layer)
        np.testing.assert_allclose(joined, alone.mean(0), atol=1e-5 * np.abs(alone).max())


def test_short_sounds_are_filled_up_as_said(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m")
    short, long = WAVES[0], WAVES[1]
    files = [encoded(short, subtype="FLOAT"), encoded(long, subtype="FLOAT")]
    silent = rows(folder, files, seconds=1.0, short="silence")
    expected = own_output(folder, np.pad(short, (0, len(long) - len(short)))).mean(0)
    np.testing.assert_allclose(silent[0], expected, atol=1e-4)
    twice = rows(folder, files, seconds=1.0, short="repeat")
    expected = own_output(folder, np.tile(short, 4)[: len(long)]).mean(0)
    np.testing.assert_allclose(twice[0], expected, atol=1e-4)
    np.testing.assert_allclose(silent[1], twice[1], atol=1e-5)


def test_everything_that_decides_a_row_is_part_of_its_key(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m")
    backbone = load_backbone(f"hf/{folder}")
    said = json.dumps(describe_space(backbone))
    for part in ("soundfile", "soxr", "transformers", "do_normalize", '"rate": 16000', "seconds"):
        assert part in said
    others = [
        {"seconds": 5.0}, {"windows": 2}, {"short": "silence"}, {"rate": 8000},
        {"extractor": backbone.inputs.values()["extractor"].replace("true", "false")},
    ]  # fmt: skip
    keys = {json.dumps(describe_space(load_backbone(f"hf/{folder}", **o))) for o in others}
    assert len(keys | {said}) == len(others) + 1
    same = backbone.inputs.changed(length=16_000)  # found out for training: the rows are the same
    assert same.describe() == backbone.inputs.describe()


def test_inputs_are_plain_values(tmp_path: Path) -> None:
    inputs = load_backbone(f"hf/{save_model(tmp_path / 'm')}").inputs
    assert isinstance(inputs, Sounds)
    again = Sounds(**json.loads(json.dumps(inputs.values())))
    assert again == inputs == copy.deepcopy(inputs) == pickle.loads(pickle.dumps(inputs))
    assert str(inputs).startswith(
        "channels averaged, resampled to 16,000 Hz (soxr), the first 30 s"
    )


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seconds": 0}, "seconds must lie between 0 and 3600"),
        ({"seconds": float("nan")}, "seconds must lie between"),
        ({"windows": 0}, "windows must be a whole number of at least 1"),
        ({"short": "loop"}, "short must be one of own, silence, repeat"),
        ({"extractor": "{}"}, "extractor must be the JSON text"),
        ({"extractor": '{"feature_extractor_type": "Popen"}'}, "extractor must be one of Wav2Vec2"),
        ({"size": 224}, "have no size"),
    ],
)
def test_values_that_cannot_be_are_refused(
    values: dict[str, Any], words: str, tmp_path: Path
) -> None:
    folder = save_model(tmp_path / "m")
    with pytest.raises(ConfigError, match=words):
        load_backbone(f"hf/{folder}", **values)


def test_a_window_that_the_network_does_not_have_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m", "whisper")
    with pytest.raises(ConfigError, match="seconds must be at most 2, the window of the network"):
        load_backbone(f"hf/{folder}", seconds=5)


def test_what_is_no_model_of_sounds_is_refused(tmp_path: Path) -> None:
    folder = save_model(tmp_path / "m")
    (folder / "preprocessor_config.json").unlink()
    with pytest.raises(BackboneError, match=r"has no feature extractor in .*: there is no"):
        load_backbone(f"hf/{folder}")
    noisy = save_model(tmp_path / "w", "whisper", dither=0.01)
    with pytest.raises(BackboneError, match=r"adds noise \(dither 0.01\)"):
        load_backbone(f"hf/{noisy}")
    from transformers import EncodecFeatureExtractor

    other = save_model(tmp_path / "e")
    EncodecFeatureExtractor().save_pretrained(other)
    with pytest.raises(BackboneError, match="has the feature extractor Encodec"):
        load_backbone(f"hf/{other}")


def test_texts_are_refused(tmp_path: Path) -> None:
    backbone = load_backbone(f"hf/{save_model(tmp_path / 'm')}")
    with pytest.raises(DataError, match="the data are texts, and this backbone takes sounds"):
        backbone.inputs.check_items(TextItems(["a"], "text"))


@pytest.mark.parametrize("kind", ["wav2vec2", "whisper", "ast", "clap", "wav2vec2-bert"])
def test_parameters_are_grouped_block_by_block(kind: str, tmp_path: Path) -> None:
    module = load_backbone(f"hf/{save_model(tmp_path / 'm', kind)}").module
    groups = block_groups(module)
    blocks = 2 if kind == "clap" else 3
    assert [each.name for each in groups][1 : 1 + blocks] == list(module.blocks)
    assert len(groups) in (1 + blocks, 2 + blocks)


def test_no_engine_is_made_for_each_length(tmp_path: Path) -> None:
    backbone = load_backbone(f"hf/{save_model(tmp_path / 'm')}")
    split = split_of([encoded(wave) for wave in WAVES])
    with Extractor((backbone,), Extraction(4)) as extractor:
        extractor.ahead = 10**6  # so many that any engine would pay
        assert sum(len(each.indices) for each in extractor.rows(split)) == len(split)
        assert extractor.plan is not None
        assert extractor.plan.engine == AS_WRITTEN
