"""A cache is a place, the same in every command: a folder, or an address of a remote store."""

from __future__ import annotations

from pathlib import Path

import pytest

from headstart.cache import FeatureCache
from tests.commands.test_cli import command, folder, one_error_line

__all__ = ["command", "folder"]

COMMANDS = {
    "fit": ["--no-baselines"],
    "sweep": ["--heads", "prototype"],
    "examine": ["--repetitions", "2"],
    "compare": ["--configs", "eval", "--repeats", "1"],
    "finetune": ["--recipe", "linear-probe", "--epochs", "1", "--stored", "on", "--no-baselines"],
    "advise": ["--epochs", "1", "--repetitions", "2"],
}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_takes_a_remote_cache(command, folder, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mirrors"))
    remote = f"memory://bucket/{name}"
    status, _, err = command(name, folder, "--cache", remote, *COMMANDS[name])
    assert status == 0, err
    assert not list(tmp_path.glob("memory*"))
    assert not (tmp_path / "cache").exists()  # $HEADSTART_CACHE is another place
    assert sum(info.rows for info in FeatureCache(remote).store.spaces()) > 0


def test_predict_and_evaluate_take_a_remote_cache(command, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "mirrors"))
    remote = "memory://bucket/trained"
    assert command("fit", folder, "--cache", remote, "--out", "run")[0] == 0
    for name in ("predict", "evaluate"):
        status, _, err = command(name, "run", folder, "--cache", remote)
        assert status == 0, err
    status, out, _ = command("cache", "ls", "--cache", remote)
    assert status == 0
    assert "12" in out
    assert not list(tmp_path.glob("memory*"))


@pytest.mark.parametrize("mode", ["auto", "on", "off"])
def test_a_mode_of_fine_tuning_is_no_place(command, folder, tmp_path, monkeypatch, mode):
    monkeypatch.chdir(tmp_path)
    for name in ("fit", "finetune"):
        line = one_error_line(command(name, folder, "--cache", mode))
        assert f"--cache {mode} would be a folder of that name" in line
        assert "--stored" in line or name == "fit"
    assert not Path(mode).exists()
    assert command("fit", folder, "--cache", f"./{mode}", "--out", "run")[0] == 0
    assert Path(mode).is_dir()
