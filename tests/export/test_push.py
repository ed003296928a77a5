"""Artefacts on a hub: a folder of this machine, and a repository by Hugging Face's own client."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
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
from tests.export.hub import Hub, running_hub


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
    with pytest.raises(
        ConfigError, match=r"holds files that do not belong to an artefact, such as 'thesis"
    ):
        push_artefact(artefact, str(tmp_path))
    assert names(tmp_path) == {"thesis.tex"}
    with pytest.raises(ConfigError, match="is a file"):
        push_artefact(artefact, str(tmp_path / "thesis.tex"))
    with pytest.raises(DataError, match="is not a complete artefact"):
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


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Hub]:
    """A hub that Hugging Face's own client speaks to."""
    constants = importlib.import_module("huggingface_hub.constants")
    with running_hub() as found:
        monkeypatch.setattr(constants, "ENDPOINT", found.url)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)  # whose store is another service
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "token"))
        yield found


def test_a_repository_by_the_real_client(artefact: Path, hub: Hub, tmp_path: Path) -> None:
    where = headstart.push(artefact, "hf:me/ants")
    assert where == f"{hub.url}/me/ants"
    assert hub.private == {"me/ants": True}
    files = hub.files["me/ants"]
    assert set(files) == {*names(artefact), ".gitattributes"}
    assert all(files[name] == (artefact / name).read_bytes() for name in names(artefact))
    assert any(each.startswith("PUT /upload/") for each in hub.asked)  # the network, as a large one
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    read_artefact(tmp_path)  # whole

    files["model.safetensors"] = files["program.json"] = b"of another format"
    files["notes.txt"] = b"mine"
    headstart.push(artefact, "hf:me/ants", message="Second")
    assert hub.messages == ["Upload to-push", "Second"]
    assert set(files) == {*names(artefact), ".gitattributes", "notes.txt"}
    headstart.push(artefact, "hf:us/bees", public=True)
    assert hub.private == {"me/ants": True, "us/bees": False}


@pytest.mark.parametrize("status", [401, 403, 404, 409, 413, 422])
def test_what_a_hub_answers_is_one_line(status: int, artefact: Path, hub: Hub) -> None:
    hub.refuses = status
    with pytest.raises(ConfigError, match=r"^the hub rejected 'me/ants': ") as refused:
        headstart.push(artefact, "hf:me/ants")
    assert "\n" not in str(refused.value)
    assert hub.files == {}


def test_a_hub_that_is_not_there_is_one_line(
    artefact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    constants = importlib.import_module("huggingface_hub.constants")
    with running_hub() as gone:
        pass
    monkeypatch.setattr(constants, "ENDPOINT", gone.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ConfigError, match="without a network, push to a folder"):
        headstart.push(artefact, "hf:me/ants")


def test_what_the_hub_refuses_is_one_line(artefact: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise OSError("401 Client Error\nfor url: …")

    monkeypatch.setattr(huggingface_hub, "HfApi", lambda **_: SimpleNamespace(create_repo=refuse))
    with pytest.raises(ConfigError, match=r"^the hub rejected 'me/ants': 401 Client Error; log"):
        headstart.push(artefact, "hf:me/ants")
    for wrong in ("hf:", "hf:a/b/c", "hf:so wrong"):
        with pytest.raises(ConfigError, match="the hub rejected"):
            headstart.push(artefact, wrong)
