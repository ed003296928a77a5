"""scikit-learn's own checks, with no expected failures."""

from __future__ import annotations

import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
from sklearn.exceptions import SkipTestWarning
from sklearn.utils import estimator_checks
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from headstart.sklearn import (
    FeatureExtractor,
    HeadClassifier,
    HeadMultiLabelClassifier,
    HeadRegressor,
    TransferClassifier,
    TransferMultiLabelClassifier,
    TransferRegressor,
)
from tests.conftest import REPOSITORY

FLAT: dict[str, Any] = {
    "backbone": "headstart/glyphs",
    "image_shape": "square",
    "value_range": (-5, 5),
}
"""Any row of numbers is a square image: what the checks, which feed plain tables, need."""

ESTIMATORS = [
    HeadClassifier(head_options={"C": 1.0}),
    HeadClassifier("ridge"),
    HeadClassifier("lda"),
    HeadClassifier("knn"),
    HeadClassifier("prototype"),
    HeadClassifier("mlp", head_options={"hidden": (32,), "dropout": 0.2, "epochs": 60, "lr": 1e-2}),
    HeadRegressor(),
    HeadRegressor("mlp", head_options={"hidden": (32,), "lr": 1e-2}),
    HeadMultiLabelClassifier(head_options={"C": 1.0}),
    FeatureExtractor(**FLAT),
    FeatureExtractor(**FLAT, cache=False),
]
BEYOND = [
    "check_dataframe_column_names_consistency",
    "check_set_output_transform",
    "check_set_output_transform_pandas",
    "check_global_output_transform_pandas",
    "check_global_set_output_transform_polars",
    "check_set_output_transform_polars",
    "check_transformer_get_feature_names_out",
    "check_transformer_get_feature_names_out_pandas",
]
"""Checks that scikit-learn runs on its own estimators beside those of ``check_estimator``."""

ARRAY_API = """
import sys
from sklearn.utils.estimator_checks import estimator_checks_generator
from tests.sklearn.test_checks import ESTIMATORS
ran = 0
for estimator in ESTIMATORS:
    for estimator, check in estimator_checks_generator(estimator):
        if "check_array_api_input" in str(check):
            check(estimator)
            ran += 1
print(ran)
"""


@pytest.mark.filterwarnings("ignore::UserWarning")
@parametrize_with_checks(ESTIMATORS)
def test_common_checks(estimator: Any, check: Any) -> None:
    check(estimator)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize(
    "estimator",
    [
        HeadClassifier(),
        TransferClassifier(head_options={"C": 1.0}, **FLAT),
        TransferMultiLabelClassifier(head_options={"C": 1.0}, **FLAT),
        TransferRegressor(**FLAT),
    ],
    ids=["auto", "transfer", "several labels", "numbers"],
)
def test_common_checks_of_slow_ones(estimator: Any) -> None:
    results = check_estimator(estimator, on_skip=None)
    passed = [result for result in results if result["status"] == "passed"]
    assert len(passed) >= 50
    # This check needs a variable of the environment; see test_check_of_array_api.
    others = {r["check_name"] for r in results} - {r["check_name"] for r in passed}
    assert others <= {"check_array_api_input"}


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("name", BEYOND)
def test_further_checks_of_transformers(name: str) -> None:
    getattr(estimator_checks, name)("FeatureExtractor", FeatureExtractor(**FLAT))


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("estimator", [HeadClassifier("lda"), HeadRegressor()], ids=type)
def test_names_of_columns(estimator: Any) -> None:
    check = estimator_checks.check_dataframe_column_names_consistency
    check(type(estimator).__name__, estimator)


@pytest.mark.slow
def test_check_of_array_api(cache: Path) -> None:
    # The variable counts when SciPy is imported, so a process of its own it must be.
    surroundings = {**os.environ, "SCIPY_ARRAY_API": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ARRAY_API],
        cwd=REPOSITORY,
        env={**surroundings, "HEADSTART_CACHE": str(cache)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(ESTIMATORS)


@pytest.mark.parametrize("estimator", [FeatureExtractor(), TransferClassifier()], ids=type)
def test_without_a_meaning_for_flat_rows_tables_are_not_claimed(estimator: Any) -> None:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        results = check_estimator(estimator)
    assert {result["status"] for result in results} <= {"passed"}
    assert any(issubclass(warning.category, SkipTestWarning) for warning in said)
