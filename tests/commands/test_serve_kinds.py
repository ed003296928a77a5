"""Whatever is fitted is served: every kind of items × every task, with a coverage and with ood."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

import headstart
from headstart.commands.serve.job import serving
from headstart.core.errors import ConfigError, DataError, HeadError
from tests.commands.serving import Client, form
from tests.kinds_of_runs import KINDS, QUIET, TASKS, Runs

TOLERANCE = 1e-5
RAW = {"audio": "audio/wav", "text": "text/plain; charset=utf-8"}
SURE: dict[str, Any] = {"coverage": 0.8, "ood": "knn", "false_alarms": 0.1}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    return Runs(tmp_path_factory.mktemp("kinds"))


def expected(run: Path, items: list[Any], cache: Path, **how: Any) -> list[dict[str, Any]]:
    said = headstart.predict(items, run, cache=cache, reporter=QUIET, **how)
    columns = said.columns(3)
    return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]


def same(found: list[dict[str, Any]], wanted: list[dict[str, Any]]) -> None:
    assert len(found) == len(wanted)
    for one, other in zip(found, wanted, strict=True):
        assert list(one) == list(other)
        for name in set(one) - {"item"}:
            if isinstance(other[name], float):
                # Distances of near neighbours are square roots of small differences.
                far = 1e-3 if name == "ood_score" else TOLERANCE
                assert one[name] == pytest.approx(other[name], abs=far, rel=1e-5), name
            else:
                assert one[name] == other[name], name


def fits(value: Any, schema: dict[str, Any]) -> bool:
    """Whether a value is as a schema says: of the few words that ours use."""
    if "oneOf" in schema:
        return sum(fits(value, each) for each in schema["oneOf"]) == 1
    kinds = {"object": dict, "array": list, "string": str, "boolean": bool, "number": float}
    if not isinstance(value, kinds[schema["type"]]):
        return False
    if isinstance(value, list):
        return all(fits(each, schema["items"]) for each in value)
    if isinstance(value, dict):
        known = schema["properties"]
        whole = set(schema["required"]) <= set(value) <= set(known)
        return whole and all(fits(each, known[name]) for name, each in value.items())
    return True


WALK = [
    pytest.param(kind, task, marks=() if kind == "image" else pytest.mark.slow)
    for kind in KINDS
    for task in TASKS
]


@pytest.mark.parametrize(("kind", "task"), WALK)
def test_what_is_fitted_is_served_as_predict_answers(kind: str, task: str, runs: Runs) -> None:
    run, items = runs.run(kind, task), runs.items(kind)
    wanted = expected(run, items, runs.cache, **SURE)
    assert {"ood", "ood_p", "ood_score"} < set(wanted[0])
    assert ("abstain" in wanted[0]) == (task != "regression")
    with serving(run, port=0, cache=runs.cache, reporter=QUIET, **SURE) as url:
        client = Client(url)
        _, _, about = client("GET", "/")
        assert about["task"] == task
        assert about["coverage"]["share"] == 0.8
        assert about["ood"] == {"method": "knn", "false_alarms": 0.1}
        coded = items if kind == "text" else [base64.b64encode(each).decode() for each in items]
        unit = about["takes"].partition('{"')[2].partition('"')[0]
        status, answer = client.predict(json.dumps({unit: coded}).encode())
        assert status == 200, answer
        same(answer["predictions"], wanted)
        assert about["says"] == list(wanted[0])
        one = items[0].encode() if kind == "text" else items[0]
        for content_type in (RAW.get(kind, "image/png"), "application/octet-stream"):
            status, answer = client.predict(one, content_type)
            assert status == 200, answer
            same(answer["predictions"], wanted[:1])
        files = [(f"{i}", each.encode() if kind == "text" else each) for i, each in
                 enumerate(items)]  # fmt: skip
        status, answer = client.predict(*form(*files))
        same(answer["predictions"], wanted)
        # what it says is what its own description says
        _, mixed = client.predict(json.dumps({unit: [coded[0], "" if kind == "text" else "!"]})
                                  .encode())  # fmt: skip
        assert "error" in mixed["predictions"][1]
        _, _, described = client("GET", "/openapi.json")
        answers = described["paths"]["/predict"]["post"]["responses"]
        schema = answers["200"]["content"]["application/json"]["schema"]
        assert fits(answer, schema)
        assert fits(mixed, schema)
        assert not fits({"predictions": [{"item": "x"}]}, schema)
        assert {"400", "413", "415", "422", "503"} < set(answers)


def test_a_body_of_another_kind_says_what_is_taken(runs: Runs) -> None:
    run = runs.run("image", "classification")
    with serving(run, port=0, cache=runs.cache, reporter=QUIET) as url:
        for kind in ("audio/wav", "text/plain", "application/pdf", "image", "video/mp4"):
            status, answer = Client(url).predict(runs.items("image", 1)[0], kind)
            assert status == 415, kind
            assert "an image as it is" in answer["error"]["expected"]


def test_what_a_run_cannot_promise_is_said_before_anything_is_served(runs: Runs) -> None:
    run = runs.run("image", "classification")
    for given, error, text in (
        ({"coverage": 0.999}, HeadError, "needs 999 held-out training items"),
        ({"ood": "knn", "false_alarms": 0.001}, HeadError, "false_alarms=0.001 needs"),
        ({"by_class": True}, ConfigError, "by_class requires coverage"),
        ({"coverage": 0.9, "queue": 3}, ConfigError, "max_items"),
    ):
        with pytest.raises(error, match=text), serving(run, port=0, reporter=QUIET, **given):
            raise AssertionError


def test_a_run_that_keeps_nothing_to_abstain_by_says_so(runs: Runs, tmp_path: Path) -> None:
    for path in runs.run("image", "classification").iterdir():
        if path.is_file():
            (tmp_path / path.name).write_bytes(path.read_bytes())
    said = json.loads((tmp_path / "run.json").read_text())
    del said["files"]["calibration.safetensors"]
    (tmp_path / "run.json").write_text(json.dumps(said))
    serve = serving(tmp_path, port=0, cache=runs.cache, coverage=0.9, reporter=QUIET)
    with pytest.raises(DataError, match="has no held-out scores to abstain by"), serve:
        raise AssertionError
