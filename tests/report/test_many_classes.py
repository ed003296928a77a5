"""Ten thousand classes with a few items each: page, terminal and metrics stay small."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from headstart.commands.run_page import fit_page
from headstart.core.records import to_plain
from headstart.evaluation import evaluate
from headstart.report import write_page
from headstart.report.text import confused_pairs, scores


def test_ten_thousand_classes(tmp_path: Path) -> None:
    rng, k = np.random.default_rng(0), 10_000
    labels = rng.integers(0, k // 2, 400)  # half of the classes have no items at all
    p = rng.random((400, k)) / k
    p[np.arange(400), np.where(rng.random(400) < 0.7, labels, 7)] += 1
    p /= p.sum(axis=1, keepdims=True)
    found = evaluate(labels, p, [f"product {i:05d}" for i in range(k)])
    assert found.confusion == ()
    assert found.top_5 is not None
    assert confused_pairs(found, 1)[0][1] == "product 00007"
    worded = dict(scores(found))
    assert "among the top 5" in worded
    with_items = len(np.unique(labels))
    assert worded["balanced accuracy"].endswith(
        f", over the {with_items:,} of 10,000 classes that have items"
    )
    write_page(fit_page(found, title="products"), tmp_path / "report.html")
    page = (tmp_path / "report.html").read_text()
    assert len(page) < 2_000_000
    assert "The 500 classes of lowest F1" in page
    assert len(json.dumps(to_plain(found))) < 3_000_000
