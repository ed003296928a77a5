"""``headstart view`` the second time: what was shown is there before the items are opened."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import headstart
from headstart.commands.view import opening
from headstart.commands.view.kept import state_of
from headstart.core.errors import HeadstartError
from tests.commands.chromium import chromium
from tests.commands.test_view import QUIET, ask, inside, place, run
from tests.report.browser import browser

__all__ = ["place", "run"]


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """Nothing is opened before this is set."""
    event, real = threading.Event(), opening.open_scene

    def wait(*given: Any) -> Any:
        assert event.wait(60)
        return real(*given)

    monkeypatch.setattr(opening, "open_scene", wait)
    yield event
    event.set()


def shown(place: Path, source: str = "run", **how: Any) -> Any:
    return headstart.view(place / source, cache=place / "cache", reporter=QUIET, **how)


def seen_once(place: Path, source: str = "run", **how: Any) -> None:
    with shown(place, source, **how) as made:
        assert len(made.scene.among)


def answer(viewer: Any, name: str) -> Any:
    status, body, _ = ask(viewer, inside(viewer, name))
    assert status == 200, (name, body)
    return json.loads(body)


def test_the_page_is_there_before_the_items_are_open(
    run: headstart.Run, place: Path, gate: threading.Event
) -> None:  # fmt: skip
    gate.set()
    seen_once(place)
    gate.clear()
    with shown(place) as made:
        scene = answer(made, "scene.json")
        assert scene["kept"] is True
        assert made.items == scene["count"] == run.n_train + run.n_test
        body = ask(made, inside(made, f"points.bin?of={scene['identity']}"))[1]
        wrong = [f["name"] for f in scene["fields"]].index("result")
        assert scene["fields"][wrong]["values"] == ["right", "wrong"]
        first = sorted(made._stage._kept.known)[:5]
        known = answer(made, f"items?i={','.join(map(str, first))}")
        assert [each["i"] for each in known] == first
        assert ask(made, inside(made, f"thumbnail/{first[0]}"))[0] == 200
        gate.set()
        said = answer(made, "checked")
        assert said["same"] is True
        assert any("too optimistic" in note for note in said["notes"])
        now = answer(made, "scene.json")
        assert now["kept"] is False
        assert {k: v for k, v in now.items() if k not in ("kept", "notes")} == {
            k: v for k, v in scene.items() if k not in ("kept", "notes")
        }
        assert ask(made, inside(made, "points.bin"))[1] == body == made.scene.points()
        assert known == made.scene.named(first)


def test_items_that_have_changed_since_are_shown_as_they_are(
    run: headstart.Run, place: Path, gate: threading.Event
) -> None:  # fmt: skip
    gate.set()
    seen_once(place, "data", backbone="headstart/glyphs")
    folder = place / "data" / "train" / "zero"
    one, other = sorted(folder.iterdir())[:2]
    before, old = state_of(place / "data"), one.read_bytes()
    gate.clear()
    try:
        one.write_bytes(other.read_bytes())  # no folder is written to
        assert state_of(place / "data") == before
        with shown(place, "data", backbone="headstart/glyphs") as made:
            scene = answer(made, "scene.json")
            gate.set()
            assert answer(made, "checked")["same"] is False
            assert ask(made, inside(made, f"points.bin?of={scene['identity']}"))[0] == 404
            now = answer(made, "scene.json")
            assert now["identity"] != scene["identity"]
            assert ask(made, inside(made, f"points.bin?of={now['identity']}"))[0] == 200
    finally:
        one.write_bytes(old)


def test_items_that_were_renamed_since_have_their_new_names(
    run: headstart.Run, place: Path, gate: threading.Event
) -> None:  # fmt: skip
    gate.set()
    seen_once(place)
    with shown(place) as made:
        first = made.scene.first(1)[0]
        name = answer(made, f"items?i={first}")[0]["item"]
    old = place / "data" / name
    new = old.with_name("renamed.png")
    before = state_of(place / "data")
    gate.clear()
    old.rename(new)
    try:
        assert state_of(place / "data") == before
        with shown(place) as made:
            assert answer(made, f"items?i={first}")[0]["item"] == name
            gate.set()
            assert answer(made, "checked")["same"] is False
            assert answer(made, f"items?i={first}")[0]["item"].endswith("/renamed.png")
            assert answer(made, f"item/{first}")["item"].endswith("/renamed.png")
    finally:
        new.rename(old)


def test_what_cannot_be_opened_any_more_is_said(
    run: headstart.Run, place: Path, gate: threading.Event
) -> None:  # fmt: skip
    gate.set()
    seen_once(place, "data", backbone="headstart/glyphs")
    one = sorted((place / "data" / "train" / "zero").iterdir())[0]
    old = one.read_bytes()
    try:
        one.write_bytes(b"no picture")
        with shown(place, "data", backbone="headstart/glyphs") as made:
            assert "cannot be read" in answer(made, "checked")["error"]
            with pytest.raises(HeadstartError, match="cannot be read"):
                made.wait()
            with pytest.raises(HeadstartError, match="cannot be read"):
                _ = made.scene
    finally:
        one.write_bytes(old)


def test_another_call_another_run_and_other_data_keep_pages_of_their_own(
    run: headstart.Run, place: Path, tmp_path: Path
) -> None:  # fmt: skip
    seen_once(place)
    with shown(place) as made:
        assert made._stage._kept is not None
    with shown(place, seed=1) as made:
        assert made._stage._kept is None
    with headstart.view(run, cache=place / "cache", reporter=QUIET) as made:
        assert made._stage._kept is None  # in memory: nothing says that it is the same
    with headstart.view(place / "run", cache=tmp_path, reporter=QUIET) as made:
        assert made._stage._kept is None


def test_beginning_loads_no_heavy_library() -> None:
    code = (
        "import sys; from headstart.commands.cli import app; import headstart.commands.view.job;"
        " print(sorted({'torch', 'timm', 'sklearn', 'matplotlib'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_browser_shows_it_and_says_so(
    run: headstart.Run, place: Path, tmp_path: Path, gate: threading.Event
) -> None:  # fmt: skip
    if browser() is None:
        pytest.skip("needs Chromium, which is not installed here")
    gate.set()
    seen_once(place)
    gate.clear()
    with shown(place) as made, chromium(tmp_path) as started:
        tab = started.tab()
        tab.size(1280, 800)
        tab.go(made.url)
        tab.until("document.documentElement?.dataset.ready === 'yes'")
        assert "As kept from the last look" in tab.until(
            "!document.getElementById('checking').hidden &&"
            " document.getElementById('checking').textContent"
        )
        tab.until("document.querySelectorAll('#gallery .card').length >= 40")
        gate.set()
        tab.until("document.getElementById('checking').hidden")
        assert tab.run("headstart.n") == run.n_train + run.n_test
        assert [each for each in tab.complaints() if "favicon" not in each] == []
