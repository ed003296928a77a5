"""The heads of a study: what is tested is trained with the options that were given."""

from __future__ import annotations

import json

import numpy as np
import pytest

from headstart.heads import fit_logistic
from headstart.study import HeadSpec
from headstart.study.heads import HeadRows, fit_head


@pytest.fixture
def rows() -> HeadRows:
    """Two classes that overlap, nine to one, in features of very different scales."""
    rng = np.random.default_rng(0)
    y = (np.arange(300) % 10 == 0).astype(np.int64)
    x = (rng.normal(size=(300, 3)) + y[:, None]).astype(np.float32) * np.float32([1, 1, 100])
    held_out = np.arange(300) % 5 == 1
    return HeadRows(x[:200], y[:200], np.arange(200), held_out[:200], x[:200][held_out[:200]], x)


@pytest.mark.parametrize(
    "options",
    [
        {"class_weight": "balanced"},
        {"class_weight": np.array([1.0, 9.0])},
        {"standardise": False},
    ],
    ids=str,
)
def test_the_tested_head_has_the_options_of_the_chosen_one(rows, options):
    spec = HeadSpec("linear", {"grid": [1e-3], "tolerance": 1e-8, **options})
    found = fit_head(spec, rows, 2, seed=0)
    expected = fit_logistic(rows.train, rows.labels, 2, C=1e-3, tolerance=1e-8, **options)[0]
    plain = fit_logistic(rows.train, rows.labels, 2, C=1e-3, tolerance=1e-8)[0]
    np.testing.assert_array_equal(found.test, expected.predict(rows.test))
    assert (found.test != plain.predict(rows.test)).any()
    json.dumps(spec.describe())  # for keys and reports
