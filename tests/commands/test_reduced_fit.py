"""``fit`` adds up what parts of the rows give, on request or where the memory is short."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import headstart
from headstart.commands.fit import reducing
from headstart.core.errors import ConfigError
from headstart.core.progress import SilentReporter

GIVEN = {"lda": {}, "ridge": {"alpha": 10.0}, "linear": {"C": 0.1, "tolerance": 1e-9}}


class Notes(SilentReporter):
    """Keeps what is said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        """Keep it."""
        self.said.append(text)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


def fit(cache: Path, **more: Any) -> tuple[Any, list[str]]:
    notes = Notes()
    shared = {"cache": cache, "write": False, "baselines": False, "reporter": notes}
    made = headstart.fit("digits", "headstart/glyphs", **{**shared, **more})
    return made.head, notes.said


@pytest.mark.parametrize("head", GIVEN)
def test_the_head_is_that_of_one_machine(cache: Path, head: str) -> None:
    whole, said = fit(cache, head=head, head_options=GIVEN[head], abstain="never")
    assert not any("by sums over" in note for note in said)
    found, said = fit(cache, head=head, head_options=GIVEN[head], abstain="never", reduce="always")
    (told,) = [note for note in said if "by sums over" in note]
    assert told.startswith(f"{head} is fitted by sums over 2 parts of the rows, in this process")
    assert np.abs(found.weight - whole.weight).max() < 1e-6
    assert np.abs(found.bias - whole.bias).max() < 1e-6


def test_short_memory_decides_where_there_is_a_runner(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reducing, "memory_share", lambda: 1000)
    _, said = fit(cache, head="lda")
    assert not any("by sums over" in note for note in said)
    started: list[int] = []
    monkeypatch.setattr(
        reducing,
        "over_processes",
        lambda workers: started.append(workers) or reducing.nullcontext(map),
    )
    _, said = fit(cache, head="lda", runner="processes", runner_workers=3)
    assert started == [3]
    (told,) = [note for note in said if "by sums over" in note]
    assert "in 3 processes: the features take" in told
    assert "more than 0.4 of the free memory" in told
    _, said = fit(cache, head="knn", runner="processes", runner_workers=3)
    assert any("the head 'knn' needs all rows in one place" in note for note in said)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"head": "auto"}, "must not be 'always' with the head 'auto'"),
        ({"head": "knn"}, "linear, ridge and lda allow it"),
        ({"start": "classifier"}, "start, which has a head of its own"),
        ({"head": "linear", "class_weight": "balanced"}, "rows have weights"),
    ],
)
def test_what_cannot_be_reduced_is_refused(cache: Path, given: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        fit(cache, reduce="always", **given)


@pytest.mark.slow
def test_the_command_adds_up_in_processes(cache: Path, tmp_path: Path) -> None:
    heads = []
    for name, more in (("one", []), ("two", ["--reduce", "always", "--runner", "processes"])):
        words = ["fit", "digits", "-b", "headstart/glyphs", "--head", "lda", "--no-baselines"]
        words += ["--cache", str(cache), "-o", str(tmp_path / name), *more]
        call = [sys.executable, "-c", "from headstart.commands.cli import main; main()", *words]
        done = subprocess.run(call, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, done.stderr
        heads.append(headstart.open_run(tmp_path / name).head)
    assert "lda is fitted by sums over" in done.stderr
    assert np.abs(heads[0].weight - heads[1].weight).max() < 1e-6
