"""Sounds at an address: in folders, and in tables here and there that name them."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.data import load_data, load_items
from tests.sound_models import encoded, noise, tone

fsspec = pytest.importorskip("fsspec", reason="needs fsspec")
pytest.importorskip("soundfile", reason="needs soundfile")


@pytest.fixture
def sounds() -> list[str]:
    memory = fsspec.filesystem("memory")
    memory.pipe({
        f"/sounds/{label}/{i}.wav": encoded(made(0.1, seed=i))
        for label, made in (("a", noise), ("b", lambda s, seed: tone(s, seed=seed)))
        for i in range(6)
    })  # fmt: skip
    return [f"{label}/{i}.wav" for label in "ab" for i in range(6)]


@pytest.mark.parametrize("place", ["folder", "paths", "addresses", "addresses here"])
def test_sounds_elsewhere(place: str, sounds: list[str], tmp_path: Path) -> None:
    start = "memory://sounds/" if "addresses" in place else ""
    rows = "file,label\n" + "".join(f"{start}{name},{name[0]}\n" for name in sounds)
    source = "memory://sounds"
    if place == "addresses here":
        (tmp_path / "t.csv").write_text(rows)
        source = str(tmp_path / "t.csv")
    elif place != "folder":
        source = f"memory://{'other' if start else 'sounds'}/t.csv"
        fsspec.filesystem("memory").pipe(source.removeprefix("memory:/"), rows.encode())
    try:
        data = load_data(source)
        assert data.train.items.kind == "audio"
        assert data.train.classes == ("a", "b")
        for split in (data.train, data.test):
            assert all(split.content(i)[:4] == b"RIFF" for i in range(len(split)))
    finally:
        fsspec.filesystem("memory").rm("/", recursive=True)


def test_one_sound_at_an_address(sounds: list[str]) -> None:
    try:
        found = load_items("memory://sounds/a/0.wav", kind="audio")
        assert len(found) == 1
        assert found.content(0)[:4] == b"RIFF"
    finally:
        fsspec.filesystem("memory").rm("/", recursive=True)
