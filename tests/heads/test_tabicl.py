"""The head 'tabicl': TabICL's own predictions behind a projection, with random weights."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headstart.core.errors import HeadError, MissingExtraError
from headstart.heads import TrainingRows, head_kind, load_head
from headstart.heads import tabicl as module
from headstart.heads.tabicl_weights import HUB, digest_of
from headstart.heads.table import automatic_heads

pytest.importorskip("tabicl", reason="needs tabicl")

from tests.tabicl_models import save

RNG = np.random.default_rng(0)
N, D, K = 80, 12, 3
Y = RNG.integers(0, K, N)
X = (RNG.normal(size=(N, D)) + Y[:, None]).astype(np.float32)
Q = RNG.normal(size=(25, D)).astype(np.float32)
VALUES = np.stack([X[:, 0] * 100 + 7, X[:, 1]], axis=1).astype(np.float64)
KIND = head_kind("tabicl")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(tmp_path_factory.mktemp("weights") / "classifier.ckpt")


def trained(y: np.ndarray = Y, classes: int = K, task: str = "classification", **options: Any):
    rows = TrainingRows(X, y, classes, task=task, seed=3)
    return KIND.fit(rows, KIND.settings({"estimators": 2, **options}))


def own(task: str, path: Path, x: np.ndarray, y: np.ndarray, queries: np.ndarray) -> np.ndarray:
    """What the package itself says."""
    import tabicl

    kind = tabicl.TabICLClassifier if task == "classification" else tabicl.TabICLRegressor
    made = kind(n_estimators=2, random_state=3, model_path=path, device="cpu").fit(x, y)
    return made.predict_proba(queries) if task == "classification" else made.predict(queries)


def test_it_is_what_the_package_predicts(weights: Path, tmp_path: Path) -> None:
    centred = X - X.mean(axis=0, dtype=np.float64)
    queries = (Q - X.mean(axis=0, dtype=np.float64)).astype(np.float32)
    head = trained(checkpoint=str(weights), components=None).head
    expected = own("classification", weights, centred.astype(np.float32), Y, queries)
    np.testing.assert_allclose(head.predict_proba(Q), expected, atol=1e-6)
    head.save(tmp_path)
    np.testing.assert_array_equal(load_head(tmp_path).predict_proba(Q), head.predict_proba(Q))


def test_a_regression_of_several_targets(tabicl_weights_of: Any) -> None:
    path = tabicl_weights_of("regression")
    head = trained(VALUES, 2, "regression", components=None).head
    centred = (X - X.mean(axis=0, dtype=np.float64)).astype(np.float32)
    queries = (Q - X.mean(axis=0, dtype=np.float64)).astype(np.float32)
    for one in range(2):
        expected = own("regression", path, centred, VALUES[:, one], queries)
        np.testing.assert_allclose(head.predict(Q)[:, one], expected, rtol=1e-5, atol=1e-5)


def test_it_sees_principal_components_and_says_so(weights: Path) -> None:
    found = trained(checkpoint=str(weights), components=4)
    assert found.head.n_features == D
    assert "4 principal components of 12 features" in found.notes[0]
    assert not trained(checkpoint=str(weights)).notes  # no more features than components
    some = found.head.predict_proba(Q)[:5]
    np.testing.assert_allclose(found.head.predict_proba(Q[:5]), some, atol=1e-6)


def test_a_class_without_rows_gets_nothing(weights: Path) -> None:
    p = trained(Y * 2, 6, checkpoint=str(weights)).head.predict_proba(Q)
    assert p.shape == (25, 6)
    np.testing.assert_array_equal(p[:, [1, 3, 5]], 0)
    np.testing.assert_allclose(p.sum(axis=1), 1)


def test_nothing_of_the_user_s_is_changed(weights: Path) -> None:
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.get_rng_state(), np.random.get_state()[1].copy(), torch.get_num_threads()
    trained(checkpoint=str(weights)).head.predict(Q)
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])
    assert before[2] == torch.get_num_threads()


def test_auto_tries_it_only_when_told_and_in_folds(weights: Path) -> None:
    assert "tabicl" not in automatic_heads()
    assert "tabicl" not in automatic_heads("regression")
    auto = head_kind("auto")
    found = auto.fit(TrainingRows(X, Y, K), auto.settings({"heads": ("linear", "tabicl")}))
    assert set(found.details["heads"]) == {"linear", "tabicl"}
    assert found.chosen["head"] == "linear"  # random weights say nothing


REFUSED = {
    "many rows": ({}, "MOST_ROWS", "at most 50 training rows for the head 'tabicl', found 80"),
    "many columns": (
        {"components": None}, "MOST_COLUMNS", "at most 50 features .* found 60.*components=100",
    ),
    "no file": ({"checkpoint": "nowhere.ckpt"}, "", "checkpoint='nowhere.ckpt' is not a file"),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_it_cannot_take_is_refused(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    options, limit, said = REFUSED[what]
    x = np.tile(X, (1, 5)) if "columns" in what else X
    if limit:
        monkeypatch.setattr(module, limit, 50)
    with pytest.raises(HeadError, match=said):
        KIND.fit(TrainingRows(x, Y, K), KIND.settings(options))


def test_other_checkpoints_are_refused(tmp_path: Path, tabicl_weights_of: Any) -> None:
    other = str(tabicl_weights_of("regression"))
    with pytest.raises(HeadError, match="checkpoint for regression, and the task is classific"):
        trained(checkpoint=other)
    wrong = tmp_path / "wrong.ckpt"
    for content in (b"", b"no checkpoint", b"PK\3\4"):
        wrong.write_bytes(content)
        with pytest.raises(HeadError, match=r"TabICL cannot be made of 'wrong.ckpt'"):
            trained(checkpoint=str(wrong))
    torch.save({"state_dict": {}}, wrong)
    with pytest.raises(HeadError, match=r"TabICL cannot be made of 'wrong.ckpt'"):
        trained(checkpoint=str(wrong))


def test_a_head_reads_its_own_weights_or_none(tmp_path: Path, weights: Path) -> None:
    copy = tmp_path / "copy.ckpt"
    copy.write_bytes(weights.read_bytes())
    trained(checkpoint=str(copy)).head.save(tmp_path / "head")
    save(copy, seed=1)
    with pytest.raises(HeadError, match="not the checkpoint that this head was made with"):
        load_head(tmp_path / "head").predict(Q)
    copy.unlink()  # the hub's is looked at then, which is another one
    with pytest.raises(HeadError, match=digest_of(weights)[:16]):
        load_head(tmp_path / "head").predict(Q)
    document = json.loads((tmp_path / "head" / "head.json").read_text())
    document["options"]["estimators"] = 0
    (tmp_path / "head" / "head.json").write_text(json.dumps(document))
    with pytest.raises(Exception, match="estimators"):
        load_head(tmp_path / "head")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tabicl", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'headstart\[tabicl\]'"):
        trained()


def test_without_the_hub_the_file_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the hub that tests have in its place
    hub = pytest.importorskip("huggingface_hub")

    def unreachable(*_: object, **__: object) -> str:
        raise OSError("no network")

    monkeypatch.setattr(hub, "hf_hub_download", unreachable)
    with pytest.raises(HeadError, match=rf"huggingface.co/{HUB}.*no network.*checkpoint='FILE'"):
        trained()


def test_it_is_no_module_and_no_head_for_several_labels(weights: Path) -> None:
    with pytest.raises(HeadError, match="not a PyTorch module: it scales its columns"):
        trained(checkpoint=str(weights)).head.as_module()
    assert KIND.tasks == ("classification", "regression")
