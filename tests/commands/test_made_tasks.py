"""Pages of characters and turned photographs: the heads are scikit-learn's, on real data."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import average_precision_score, r2_score
from sklearn.multiclass import OneVsRestClassifier
from sklearn.preprocessing import StandardScaler

import headstart
from headstart.cache import FeatureCache
from headstart.core.progress import SilentReporter
from tests.conftest import REPOSITORY

QUIET = SilentReporter()
pytestmark = [pytest.mark.real, pytest.mark.slow]


@pytest.fixture(scope="module")
def example() -> ModuleType:
    path = REPOSITORY / "examples" / "made_tasks.py"
    spec = importlib.util.spec_from_file_location("made_tasks", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def rows_of(run: Any, data: Any, cache: FeatureCache, backbone: Any) -> tuple[Any, Any]:
    """Return the standardised rows of both splits, as scikit-learn standardises them."""
    train, test = (
        np.asarray(cache.features(backbone, split).rows, np.float64)
        for split in (data.train, data.test)
    )
    scaler = StandardScaler().fit(train)
    return scaler.transform(train), scaler.transform(test)


def test_pages_are_one_against_the_rest(
    example: ModuleType, shared_data: Path, tmp_path: Path
) -> None:
    archive = shared_data / "omniglot" / "images_background_small1.zip"
    table = example.make_pages(archive, tmp_path / "pages", train=240, test=80)
    cache = FeatureCache(tmp_path / "cache")
    backbone = headstart.load_backbone("headstart/glyphs", size=64, layer="stage2.0")
    data = headstart.load_data(table)
    run = headstart.fit(
        data, backbone, cache=cache, write=False, reporter=QUIET, head="linear",
        head_options={"C": 0.01, "tolerance": 1e-8}, precision="float32",
    )  # fmt: skip
    x, z = rows_of(run, data, cache, backbone)
    model = OneVsRestClassifier(LogisticRegression(C=0.01, tol=1e-8, max_iter=10_000))
    expected = model.fit(x, data.train.targets).predict_proba(z)
    found = headstart.predict(data.test, run, cache=cache, reporter=QUIET).probabilities
    np.testing.assert_allclose(found, expected, atol=2e-5)
    theirs = average_precision_score(data.test.targets, expected, average="macro")
    assert run.score.name == "mAP"
    assert run.score.score.value == pytest.approx(theirs, abs=1e-3)
    assert theirs > 0.6 > 0.4 > run.baselines[0].figures[0].score.value


def test_angles_are_ridge(example: ModuleType, shared_data: Path, tmp_path: Path) -> None:
    photographs = sorted((shared_data / "hymenoptera" / "train").rglob("*.jpg"))[::2]
    order = np.random.default_rng(1).permutation(len(photographs))
    table = example.make_turned([photographs[i] for i in order], tmp_path / "turned")
    cache = FeatureCache(tmp_path / "cache")
    backbone = headstart.load_backbone("headstart/photos", size=128, layer="blocks.2")
    data = headstart.load_data(table, label_column="angle")
    run = headstart.fit(
        data, backbone, cache=cache, write=False, reporter=QUIET, head="ridge",
        head_options={"alpha": 10.0}, precision="float32",
    )  # fmt: skip
    x, z = rows_of(run, data, cache, backbone)
    expected = Ridge(10.0).fit(x, data.train.targets).predict(z)
    found = headstart.predict(data.test, run, cache=cache, reporter=QUIET).values
    np.testing.assert_allclose(found.reshape(-1), expected.reshape(-1), atol=1e-3)
    assert run.score.name == "R²"
    theirs = r2_score(data.test.targets, expected)
    assert run.score.score.value == pytest.approx(theirs, abs=1e-5)
    assert theirs > 0.5
