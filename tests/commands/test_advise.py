"""Advice: measured inside the training split, on a copy, with a number for every word."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from headstart.commands.advise.indicators import (
    drift_indicator,
    gradient_indicator,
    recipes,
    trial_indicator,
)
from headstart.commands.advise.job import AdviseConfig, advise
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import SilentReporter
from headstart.core.records import Interval, Score
from headstart.finetuning.gradients import RelativeGradient
from headstart.finetuning.presets import PRESETS
from headstart.freezing import LayerDrift
from headstart.modules.digests import digests
from tests.finetuning.conftest import squares
from tests.finetuning.models import residual

QUIET = SilentReporter()
CONFIG = AdviseConfig(epochs=2, repetitions=2, lr=1e-2)


def test_advice_measures_everything_and_changes_nothing(tmp_path: Path) -> None:
    backbone = residual()
    before = digests(backbone.module)
    data = {"train": squares(80), "test": squares(20, 9)}
    advice = advise(data, backbone, config=CONFIG, cache=tmp_path, reporter=QUIET)
    assert digests(backbone.module) == before
    assert [i.name for i in advice.indicators] == [
        "trial of the last block",
        "learning curve of the probe",
        "drift of batch-norm statistics",
        "relative gradients",
    ]
    assert advice.difference.interval is not None
    assert advice.difference.interval.n == 20
    assert advice.difference.value == pytest.approx(advice.trial.value - advice.probe.value)
    assert [g.name for g in advice.gradients] == ["stem", "blocks.0", "blocks.1", "blocks.2"]
    assert len(advice.drift) == 6
    assert all(g.ratio > 0 for g in advice.gradients)


def test_the_test_split_is_not_looked_at(tmp_path: Path) -> None:
    def figures(test: tuple[np.ndarray, np.ndarray]) -> object:
        data = {"train": squares(60), "test": test}
        found = advise(data, residual(), config=CONFIG, cache=tmp_path, reporter=QUIET)
        return found.indicators

    images, labels = squares(20, 9)
    assert figures((images, labels)) == figures((255 - images, 1 - labels))


@pytest.mark.parametrize(
    ("low", "high", "leaning"),
    [(0.01, 0.05, "unfreeze"), (-0.03, 0.005, "stay frozen"), (-0.05, 0.05, "either")],
)
def test_the_trial_leans_by_its_interval(low: float, high: float, leaning: str) -> None:
    score = Score((low + high) / 2, Interval(low, high, 0.95, "normal", 100))
    assert trial_indicator(score, 5).leaning == leaning


def test_bad_settings_and_too_little_data(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        AdviseConfig(epochs=0, lr=0, repetitions=1)
    assert len(caught.value.faults) == 3
    data = {"train": squares(2), "test": squares(4, 1)}
    with pytest.raises(DataError, match="too few"):
        advise(data, residual(), config=CONFIG, cache=tmp_path, reporter=QUIET)


def _leaning(leaning: str) -> object:
    low, high = {"unfreeze": (0.01, 0.05), "stay frozen": (-0.03, 0.0), "either": (-0.1, 0.1)}[
        leaning
    ]
    return trial_indicator(Score((low + high) / 2, Interval(low, high, 0.95, "normal", 100)), 5)


def _drift(shift: float) -> LayerDrift:
    return LayerDrift("norm", 1, shift, shift, 1.0, ())


@pytest.mark.parametrize("leaning", ["unfreeze", "stay frozen", "either"])
@pytest.mark.parametrize("stands_out", [True, False])
@pytest.mark.parametrize("drifts", [True, False])
def test_the_recipe_that_is_recommended_is_the_one_that_is_printed(
    leaning: str, stands_out: bool, drifts: bool
) -> None:
    ratios = (0.1, 0.1, 9.0 if stands_out else 0.1)
    gradients = gradient_indicator(
        tuple(RelativeGradient(f"b{i}", r) for i, r in enumerate(ratios))
    )
    shifts = drift_indicator((_drift(2.0 if drifts else 0.1),))
    indicators = (_leaning(leaning), shifts, gradients)
    named = recipes(leaning, indicators)  # type: ignore[arg-type]
    said = {name for each in indicators for name in PRESETS if f"recipe {name})" in each.meaning}
    if leaning == "stay frozen":
        assert named == ()
    elif said:
        assert set(named) == said
        assert named[0] == ("surgical" if stands_out else "bn-affine")
    else:
        assert named == ("lp-ft" if leaning == "unfreeze" else "gradual",)
