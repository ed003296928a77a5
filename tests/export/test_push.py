"""Artefacts on a hub: a folder of this machine, and a repository that a fake stands for."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import huggingface_hub
import pytest

import headstart
from headstart.commands.export.job import export
from headstart.core.errors import ConfigError, DataError
from headstart.export.artefact import read_artefact
from headstart.export.hub import push_artefact
from tests.export.conftest import QUIET


@pytest.fixture(scope="module")
def artefact(place: Path) -> Path:
    return export(
        place / "run", "onnx", output=place / "to-push", items=2, cache=place / "cache",
        reporter=QUIET,
    ).folder  # fmt: skip


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_a_folder_works_offline_and_is_replaced_file_by_file(
    artefact: Path, tmp_path: Path
) -> None:
    target = tmp_path / "hub" / "model"
    assert push_artefact(artefact, str(target)) == str(target)
    assert names(target) == names(artefact)
    read_artefact(target)
    (target / ".git").mkdir()  # a clone of a repository stays one
    (target / ".gitattributes").write_text("*.onnx filter=lfs")
    assert headstart.push(artefact, target) == str(target)
    assert names(target) == {*names(artefact), ".git", ".gitattributes"}


@pytest.mark.slow
def test_a_run_is_exported_first(place: Path, tmp_path: Path) -> None:
    target = tmp_path / "model"
    headstart.push(
        place / "run", target, to="onnx", items=2, cache=place / "cache", reporter=QUIET,
        licence="mit",
    )  # fmt: skip
    assert read_artefact(target)["artefact"] == "onnx"
    assert (target / "README.md").read_text().startswith("---\nlicense: mit\n")
    headstart.push(
        place / "run", target, to="safetensors", items=2, cache=place / "cache", reporter=QUIET
    )
    assert read_artefact(target)["artefact"] == "safetensors"
    assert not (target / "model.onnx").exists()


def test_what_is_no_artefact_stays(artefact: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    with pytest.raises(ConfigError, match=r"holds files that are no artefact's, such as 'thesis"):
        push_artefact(artefact, str(tmp_path))
    assert names(tmp_path) == {"thesis.tex"}
    with pytest.raises(ConfigError, match="is a file"):
        push_artefact(artefact, str(tmp_path / "thesis.tex"))
    with pytest.raises(DataError, match="is no whole artefact"):
        push_artefact(tmp_path, str(tmp_path / "other"))
    with pytest.raises(DataError, match="is neither a run nor an artefact"):
        headstart.push(tmp_path, tmp_path / "other")


def test_a_folder_that_is_taken_is_said_before_a_run_is_exported(
    place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("headstart.commands.push.job.export")  # nothing may be made
    (tmp_path / "thesis.tex").write_text("mine")
    for target, why in ((tmp_path, "holds files"), (tmp_path / "thesis.tex", "is a file")):
        with pytest.raises(ConfigError, match=why):
            headstart.push(place / "run", target)


class Hub:
    """Remembers what it is asked for."""

    def __init__(self, **_: Any) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def create_repo(self, name: str, **given: Any) -> Any:
        self.calls.append((name, given))

        class Url(str):
            repo_id = name

        return Url(f"https://hub.example/{name}")

    def upload_folder(self, **given: Any) -> None:
        self.calls.append(("upload", given))


def test_a_repository(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    hub = Hub()
    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: hub)
    assert headstart.push(artefact, "hf:me/ants") == "https://hub.example/me/ants"
    (name, made), (_, sent) = hub.calls
    assert (name, made) == ("me/ants", {"private": True, "exist_ok": True})
    assert sent["folder_path"] == str(artefact)
    assert set(sent["allow_patterns"]) == names(artefact)
    headstart.push(artefact, "hf:me/ants", public=True, message="First")
    assert hub.calls[2][1]["private"] is False
    assert hub.calls[3][1]["commit_message"] == "First"


def test_what_the_hub_refuses_is_one_line(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("401 Client Error\nfor url: …")

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: SimpleNamespace(create_repo=refuse))
    with pytest.raises(
        ConfigError, match=r"^the hub does not take 'me/ants': 401 Client Error; log"
    ):
        headstart.push(artefact, "hf:me/ants")
    for wrong in ("hf:", "hf:a/b/c", "hf:so wrong"):
        with pytest.raises(ConfigError, match="the hub does not take"):
            headstart.push(artefact, wrong)
