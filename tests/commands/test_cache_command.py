"""headstart cache, on features that fit stored."""

from __future__ import annotations

import json
import os
import re

import pyarrow.parquet as pq
import pytest

from headstart.cache import FeatureCache
from headstart.commands.cache.command import parse_age, parse_size
from tests.commands.test_cli import command, folder, one_error_line

__all__ = ["command", "folder"]


@pytest.fixture
def keys(command, folder, tmp_path) -> list[str]:
    """Two spaces: the network's output, and a layer."""
    for k, words in enumerate(((), ("--layer", "stage2.0"))):
        status, _, err = command("fit", folder, "--out", tmp_path / f"run{k}", *words)
        assert status == 0, err
    return [info["key"] for info in json.loads(command("cache", "ls", "--json")[1])]


def test_ls_info_and_explain(command, keys):
    _, out, _ = command("cache", "ls")
    assert "GlyphNet stage2.0 avg 32×32" in out
    _, out, _ = command("cache", "info", keys[0][:8])
    assert "12 rows" in out
    assert '"preprocessing"' in out
    _, out, _ = command("cache", "explain", keys[0], keys[1])
    assert "backbone.layer" in out
    assert "preprocessing" not in out


def test_nothing_stored(command):
    assert "no features in" in command("cache", "ls")[1]
    status, out, _ = command("cache", "verify")
    assert (status, "sound" in out) == (0, True)


def test_verify_finds_damage_and_repair_costs_only_the_damaged(command, keys, folder, tmp_path):
    shard = next((tmp_path / "cache").rglob("shards/*"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.chmod(0o644)
    shard.write_bytes(content)
    status, out, _ = command("cache", "verify")
    assert status == 1
    assert shard.name in out
    assert "--repair" in out
    status, out, _ = command("cache", "verify", "--repair")
    assert status == 0, out
    lost = int(re.search(r"(\d+) rows will be computed again", out).group(1))
    assert 0 < lost < 12  # one of the two shards of one of the two spaces
    spaces = json.loads(command("cache", "ls", "--json")[1])
    assert sum(info["rows"] for info in spaces) == 24 - lost
    again = tmp_path / "again"
    computed = 0
    for words in ((), ("--layer", "stage2.0")):
        command("fit", folder, "--out", again, *words)
        computed += json.loads((again / "metrics.json").read_text())["cache"]["misses"]
    assert computed == lost


def test_gc(command, keys, tmp_path):
    assert "needs --max-size" in one_error_line(command("cache", "gc"))
    status, out, _ = command("cache", "gc", "--older-than", "30d")
    assert (status, "0 bytes freed" in out) == (0, True)
    _, out, _ = command("cache", "gc", "--max-size", "0", "--dry-run")
    assert out.count("would remove") == 2
    command("cache", "gc", "--max-size", "0MB")
    assert json.loads(command("cache", "ls", "--json")[1]) == []


def test_export_and_import(command, keys, tmp_path):
    target = tmp_path / "rows.parquet"
    status, out, _ = command("cache", "export", keys[0], target, "--quiet")
    assert (status, "12 rows written" in out) == (0, True)
    assert pq.read_table(target).num_rows == 12
    before = {s.key: s.rows for s in FeatureCache(tmp_path / "cache").store.spaces()}
    elsewhere = tmp_path / "elsewhere"
    status, out, err = command("cache", "import", target, "--cache", elsewhere)
    assert status == 0, err
    (copied,) = FeatureCache(elsewhere).store.spaces()
    assert before[copied.key] == copied.rows == 12


def test_a_remote_address(command, folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    remote = f"file://{tmp_path}/shared"
    assert command("fit", folder, "--out", tmp_path / "a", "--cache", remote)[0] == 0
    assert any((tmp_path / "shared").rglob("*"))
    for path in sorted((tmp_path / "home").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    status, _, err = command("fit", folder, "--out", tmp_path / "b", "--cache", remote)
    assert status == 0
    assert "no forward pass was needed" in err


def test_smaller_storage(command, folder, tmp_path):
    """float16 and int8 rows are spaces of their own and give nearly the same rows."""
    status, _, err = command("fit", folder, "--out", tmp_path / "h", "--storage", "float16")
    assert status == 0, err
    status, out, _ = command("predict", tmp_path / "h", folder, "--json", "--quiet")
    assert status == 0
    assert len(json.loads(out)) == 12
    (info,) = json.loads(command("cache", "ls", "--json")[1])
    _, out, _ = command("cache", "info", info["key"])
    assert "float16" in out
    assert "largest error" in out


def test_a_full_disk_is_said_before_the_first_pass(command, folder, tmp_path, monkeypatch):
    import shutil

    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    line = one_error_line(command("fit", folder, "--out", tmp_path / "run"))
    assert "free" in line
    assert "--storage float16" in line


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_read_only_cache(command, folder, tmp_path, monkeypatch):
    """What it lacks is computed, and kept in the user's own cache; one line says so."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    cache = tmp_path / "locked"
    cache.mkdir(mode=0o555)
    status, _, err = command("fit", folder, "--out", tmp_path / "r", "--cache", cache)
    assert status == 0, err
    (line,) = [line for line in err.splitlines() if str(cache) in line]
    assert "is read-only" in line
    assert str(tmp_path / "home") in line


def test_sizes_and_ages():
    assert parse_size("20GB") == 20_000_000_000
    assert parse_size("1.5 MiB") == 1_572_864
    assert parse_size("10") == 10
    assert parse_age("2d") == 172_800
    for bad in ("GB", "1.2.3", "5 parsecs", "-1GB"):
        with pytest.raises(ValueError):
            parse_size(bad)
    with pytest.raises(ValueError):
        parse_age("soon")


def test_rows_of_ls_can_be_told_apart(command, folder, tmp_path):
    """Equal networks with other weights, inputs, storage: what differs is said, and the data."""
    for k, words in enumerate(
        ((), ("--storage", "float16"), ("--mean", "0.4", "--std", "0.5"), ("--mean", "0.3"))
    ):
        status, _, err = command("fit", folder, "--out", tmp_path / f"run{k}", *words)
        assert status == 0, err
    keys = [info["key"] for info in json.loads(command("cache", "ls", "--json")[1])]
    assert len(keys) == 4
    _, out, _ = command("cache", "ls")
    lines = [line for line in out.splitlines() if line[:12] in {key[:12] for key in keys}]
    told = {re.sub(r"\s+", " ", line[12:]) for line in lines}
    assert len(told) == 4, out
    assert "kept result" in out


def test_rm_removes_what_was_named_and_says_how_much(command, keys, tmp_path):
    cache = tmp_path / "cache"
    line = one_error_line(command("cache", "rm", keys[0]))
    assert "--yes" in line
    assert "no space" in one_error_line(command("cache", "rm", "zzz", "--yes"))
    assert "no space" in one_error_line(command("cache", "rm", keys[0], "zzz", "--yes"))
    assert len(list(cache.glob("*/shards"))) == 2  # all or nothing
    status, out, _ = command("cache", "rm", keys[0][:8], "--yes")
    assert status == 0
    assert keys[0][:12] in out
    assert re.search(r"[1-9][\d.]* [kM]?B freed", out)
    left = json.loads(command("cache", "ls", "--json")[1])
    assert [info["key"] for info in left] == [keys[1]]
    outside = tmp_path / "outside"
    (cache / keys[1]).rename(outside)
    (cache / keys[1]).symlink_to(outside)
    status, out, _ = command("cache", "rm", keys[1], "--yes")
    assert status == 0
    assert "0 bytes freed" in out
    assert any(outside.rglob("*.arrow"))
    assert not (cache / keys[1]).is_symlink()
