"""Every registry is open from outside: each test adds one thing without touching the package.

One test for each row of the table "to add X, touch these files" in ``docs/architecture.md``.
"""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
from sklearn.datasets import load_digits

from headstart.commands.finetune.job import FinetuneConfig
from headstart.commands.fit.job import FitConfig, fit
from headstart.core.errors import ConfigError
from headstart.core.progress import SilentReporter
from headstart.core.settings import check, option
from headstart.heads import HeadKind, Trained, TrainingRows, load_head, register_head, sweep
from headstart.heads import registry as heads
from headstart.heads.base import Arrays, Head, Task
from headstart.heads.checks import Features, FloatArray
from headstart.study.heads import HeadRows, HeadSpec, fit_head
from tests.finetuning.conftest import squares

QUIET = SilentReporter()


@dataclass(frozen=True, eq=False)
class CentroidHead(Head):
    """A toy head: the class whose mean is nearest."""

    kind: ClassVar[str] = "centroid"

    means: FloatArray
    sharpness: float
    task: Task = "classification"
    temperature: float = 1.0

    @property
    def n_features(self) -> int:
        return self.means.shape[1]

    @property
    def n_classes(self) -> int:
        return len(self.means)

    def decision(self, x: Features) -> FloatArray:
        rows = np.asarray(x, dtype=np.float64)
        return -self.sharpness * ((rows[:, None] - self.means) ** 2).sum(axis=2)

    def state(self) -> tuple[Arrays, dict[str, Any]]:
        return {"means": self.means}, {"sharpness": self.sharpness}

    @classmethod
    def from_state(cls, arrays: Mapping[str, np.ndarray], options: Mapping[str, Any]) -> Self:
        return cls(arrays["means"], float(options["sharpness"]))


@dataclass(frozen=True)
class CentroidOptions:
    sharpness: float = option(0.01, "How fast probability falls with distance.", above=0)

    def __post_init__(self) -> None:
        check(self)


def fit_centroids(rows: TrainingRows, options: CentroidOptions) -> Trained:
    x, y = np.asarray(rows.x, dtype=np.float64), np.asarray(rows.y)
    means = np.stack([x[y == label].mean(axis=0) for label in range(rows.n_classes)])
    return Trained(CentroidHead(means, options.sharpness), {"sharpness": options.sharpness})


CENTROID = HeadKind(
    name="centroid",
    summary="the nearest class mean by distance",
    fit=fit_centroids,
    options=CentroidOptions,
    candidates=lambda _: [{"sharpness": value} for value in (0.001, 0.01)],
)


@pytest.fixture
def centroid(monkeypatch: pytest.MonkeyPatch) -> HeadKind:
    heads.head_names()  # the built-in ones are in the table that is copied
    monkeypatch.setattr(heads, "_KINDS", dict(heads._KINDS))
    return register_head(CENTROID)


def test_a_head_is_at_once_in_fit(centroid: HeadKind, tmp_path: Path) -> None:
    data = {"train": squares(40), "test": squares(20, 9)}
    run = fit(
        data, head="centroid", head_options={"sharpness": 1.0}, out=tmp_path / "run",
        cache=tmp_path / "cache", reporter=QUIET,
    )  # fmt: skip
    assert run.evaluation.accuracy.value > 0.7
    assert run.configuration["chosen"] == {"sharpness": 1.0}
    assert isinstance(load_head(tmp_path / "run"), CentroidHead)
    with pytest.raises(ConfigError, match="sharpness must be above 0"):
        fit(
            data, head="centroid", head_options={"sharpness": 0.0}, out=tmp_path / "other",
            cache=tmp_path / "cache", reporter=QUIET,
        )  # fmt: skip
    with pytest.raises(ConfigError, match="did you mean 'sharpness'"):
        FitConfig(head="centroid", head_options={"sharpnes": 1.0})
    with pytest.raises(ConfigError, match="did you mean 'centroid'"):
        FitConfig(head="centroids")


def test_a_head_is_at_once_in_sweeps(centroid: HeadKind) -> None:
    x, y = load_digits(return_X_y=True)
    found = sweep(x[:300], y[:300], 10, heads=("centroid", "knn"), folds=3)
    tried = {c.options["sharpness"] for c in found.candidates if c.head == "centroid"}
    assert tried == {0.001, 0.01}
    assert max(c.accuracy.value for c in found.candidates if c.head == "centroid") > 0.8
    everything = sweep(x[:300], y[:300], 10, grid=(0.1,), folds=3)
    assert "centroid" in {c.head for c in everything.candidates}


def test_a_head_is_at_once_in_comparisons(centroid: HeadKind) -> None:
    x, y = load_digits(return_X_y=True)
    x, y = x[:400].astype(np.float32), y[:400].astype(np.int64)
    held_out = np.arange(300) % 5 == 0
    rows = HeadRows(x[:300], y[:300], np.arange(300), held_out, x[:300][held_out], x[300:])
    fitted = fit_head(HeadSpec("centroid"), rows, 10, 0)
    assert (fitted.test == y[300:]).mean() > 0.8
    assert len(fitted.validation) == held_out.sum()
    assert fitted.chosen == {"sharpness": 0.01}
    assert HeadSpec("centroid", {"sharpness": 1.0}).describe()["sharpness"] == 1.0


def test_a_head_that_is_not_linear_is_no_start_of_fine_tuning(centroid: HeadKind) -> None:
    with pytest.raises(ConfigError, match=r"cannot start from 'centroid'.*one of linear, ridge"):
        FinetuneConfig(probe="centroid")


def test_a_linear_head_is_a_start_of_fine_tuning(monkeypatch: pytest.MonkeyPatch) -> None:
    heads.head_names()
    monkeypatch.setattr(heads, "_KINDS", dict(heads._KINDS))
    register_head(HeadKind("plain", "class means", heads.head_kind("lda").fit, linear=True))
    assert FinetuneConfig(probe="plain").probe == "plain"


def test_a_head_is_at_once_in_the_help() -> None:
    code = textwrap.dedent(
        """
        import sys
        from headstart.heads.registry import HeadKind, register_head
        register_head(HeadKind("centroid", "the nearest mean", None, linear=True))
        from headstart.commands.cli import main
        for command in ("fit", "sweep", "compare", "finetune"):
            sys.argv = ["headstart", command, "--help"]
            try:
                main()
            except SystemExit:
                pass
        assert "torch" not in sys.modules
        """
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, timeout=60,
        env={**os.environ, "COLUMNS": "400"},
    )  # fmt: skip
    assert done.stdout.count("centroid:") == 4


def test_a_taken_name_and_an_option_without_default_are_refused(centroid: HeadKind) -> None:
    @dataclass(frozen=True)
    class Bare:
        width: int

    with pytest.raises(ConfigError) as caught:
        register_head(HeadKind("logistic", "another", fit_centroids, options=Bare))
    assert caught.value.faults == (
        "the head name 'logistic' is taken by 'linear'",
        "the option 'width' of head 'logistic' needs a default",
    )
