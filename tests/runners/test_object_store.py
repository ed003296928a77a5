"""A job array on an object store, whose members see each other in its log alone."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import fsspec
import pytest

from headstart.store import Store
from tests.runners.conftest import COUNT, rows_of

BATCH = 8


def member(pictures: Path, index: int, place: str, endpoint: str, home: Path) -> Any:
    """Start one member, with a mirror of its own as on another machine."""
    words = ["extract", str(pictures), "-b", "headstart/glyphs", "--cache", place]
    words += ["--engine", "eager", "--precision", "float32", "--batch-size", str(BATCH)]
    words += ["--bad-files", "skip", "--runner", "array", "--index", str(index), "--of", "4"]
    words += ["--patience", "4", "--json"]
    env = {**os.environ, "XDG_CACHE_HOME": str(home / str(index)), "AWS_ENDPOINT_URL": endpoint}
    env |= {"AWS_DEFAULT_REGION": "us-east-1"}
    return subprocess.Popen(
        [sys.executable, "-c", "from headstart.commands.cli import main; main()", *words],
        env=env,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.slow
def test_two_of_four_members_are_killed_and_nothing_is_missing(
    pictures: Path, plain: dict[str, bytes], s3: str, tmp_path: Path
) -> None:
    options = {"client_kwargs": {"endpoint_url": s3}, "use_listings_cache": False}
    files = fsspec.filesystem("s3", **options)
    files.mkdir("bucket")
    place = "s3://bucket/features"
    members = [member(pictures, index, place, s3, tmp_path) for index in range(4)]
    deadline = time.monotonic() + 200
    while len(files.glob("bucket/features/*/log/*.json")) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    for victim in members[1:3]:
        assert victim.poll() is None
        victim.send_signal(signal.SIGKILL)
    for survivor in (members[0], members[3]):
        said, errors = survivor.communicate(timeout=200)
        assert survivor.returncode == 0, errors
        assert json.loads(said)["bad"] == 2
    for victim in members[1:3]:
        victim.communicate()
    records = [json.loads(files.cat_file(path)) for path in files.glob("bucket/features/*/log/*")]
    rework = sum(record["rows"] for record in records) - COUNT
    assert 0 <= rework <= 4 * BATCH  # no more than the shards in flight
    (mirror,) = (tmp_path / "0").glob("headstart/mirrors/*")
    assert rows_of(mirror, remote=place, remote_options=options) == plain
    assert Store(mirror, remote=place, remote_options=options).verify().ok
