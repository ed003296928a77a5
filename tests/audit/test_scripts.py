"""Every script of ``scripts/`` under the audit: faulty ones are found, right ones are let alone."""

from __future__ import annotations

import fnmatch
import importlib.util
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from headstart.audit import Report, audit_script
from headstart.audit.checks import CHECKS
from tests.audit.expected import FAULTY, FIELD, SLOW, THREADS, TROUBLE, Faulty

SCRIPTS = Path(__file__).with_name("scripts")
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem != "zoo")
CORRECT = [name for name in NAMES if name.startswith("ok_")]
CODES = {check.code for check in CHECKS}


def marked(name: str) -> set[int]:
    lines = (SCRIPTS / f"{name}.py").read_text().splitlines()
    return {number for number, line in enumerate(lines, 1) if "# <- " in line}


@pytest.fixture(scope="module", autouse=True)
def _weights() -> None:
    """Make the "pre-trained" weights here, which otherwise takes processes of their own."""
    spec = importlib.util.spec_from_file_location("audit_scripts_zoo", SCRIPTS / "zoo.py")
    assert spec is not None
    assert spec.loader is not None
    zoo = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(zoo)
    with torch.random.fork_rng():
        for name in ("resnet8", "resnet18", "test_resnet", "test_vit"):
            if not (zoo.FOLDER / f"{name}.pth").exists():
                zoo.make(name)


@pytest.fixture(autouse=True)
def _as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    grad = torch.is_grad_enabled()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
    torch.set_grad_enabled(grad)


def audited(name: str, **how: object) -> Report:
    return audit_script(SCRIPTS / f"{name}.py", **how)  # type: ignore[arg-type]


def needs(name: str) -> None:
    source = (SCRIPTS / f"{name}.py").read_text()
    for library in ("lightning", "transformers", "keras", "accelerate"):
        if f"import {library}" in source or f"from {library}" in source:
            pytest.importorskip(library)


def speed(names: list[str]) -> list[object]:
    slow = [pytest.mark.slow]
    return [
        pytest.param(name, marks=slow if name.removesuffix("_mended") in SLOW else [])
        for name in names
    ]


def described(report: Report) -> list[str]:
    return [
        f"{f.severity} {f.code} [{f.module}] {Path(f.file).name}:{f.line} {f.message}"
        for f in report.findings
    ]


def test_every_script_is_expected_to_say_something() -> None:
    faulty = {each.script for each in FAULTY}
    known = faulty | {f"{name}_mended" for name in faulty} | {*CORRECT, *FIELD, *THREADS, *TROUBLE}
    assert set(NAMES) - known == {"trouble_syntax"}
    assert known <= set(NAMES)
    assert len(CORRECT) >= 14


def test_every_check_has_a_script_that_shows_it() -> None:
    assert {code for case in FAULTY for code in case.codes} == CODES


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(case, id=case.script, marks=[pytest.mark.slow] if case.script in SLOW else [])
        for case in FAULTY
    ],
)
def test_a_faulty_script_is_found_at_its_module_and_line(case: Faulty) -> None:
    needs(case.script)
    assert set(case.codes) <= CODES
    report = audited(case.script)
    for code in case.codes:
        found = [f for f in report.findings if f.code == code]
        assert found, described(report)
        right = [f for f in found if f.line in marked(case.script)]
        right = [f for f in right if case.remark or f.severity != "info"]
        assert right, (marked(case.script), described(report))
        assert any(fnmatch.fnmatch(f.module, case.module) for f in right), described(report)
        assert all(Path(f.file).name == f"{case.script}.py" for f in right)
        assert all(f.message and f.fix and f.evidence and f.cost for f in right)
    assert not [note for note in report.notes if "failed" in note]


@pytest.mark.parametrize("name", speed([f"{case.script}_mended" for case in FAULTY]))
def test_a_mended_script_gets_no_warning(name: str) -> None:
    needs(name)
    report = audited(name)
    assert report.at_least("warning") == (), described(report)
    assert report.ending is not None
    assert report.ending.how == "end"
    assert not [note for note in report.notes if "failed" in note]


@pytest.mark.parametrize("name", speed(CORRECT))
def test_a_correct_script_gets_no_warning(name: str) -> None:
    needs(name)
    report = audited(name)
    assert report.at_least("warning") == (), described(report)
    assert report.ending is not None
    assert report.ending.how == "end"
    assert not [note for note in report.notes if "failed" in note]


@pytest.mark.parametrize("name", speed(list(FIELD)))
def test_a_mistake_in_the_style_of_users_is_found(name: str) -> None:
    needs(name)
    report = audited(name)
    for code in FIELD[name]:
        found = [f for f in report.at_least("warning") if f.code == code]
        assert any(f.line in marked(name) for f in found), (code, described(report))
    assert not [note for note in report.notes if "failed" in note]


@pytest.mark.parametrize("name", speed(list(THREADS)))
def test_the_scripts_of_the_threads_get_their_diagnosis(name: str) -> None:
    report = audited(name)
    assert THREADS[name]
    for code in THREADS[name]:
        found = [f for f in report.findings if f.code == code]
        assert any(f.line in marked(name) for f in found), (code, described(report))


@pytest.mark.parametrize("name", list(TROUBLE))
def test_troubled_scripts_end_with_a_clear_message(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    how, message = TROUBLE[name]
    with open(os.devnull) as empty:  # noqa: PTH123
        monkeypatch.setattr(sys, "stdin", empty)
        report = audited(name, steps=20, seconds=3.0 if how == "seconds" else 60.0)
    assert report.ending is not None
    assert report.ending.how == how, report.ending
    assert message in report.ending.message
    assert report.at_least("warning") == (), described(report)


def test_data_loader_workers_do_not_disturb_the_audit() -> None:
    report = audited("trouble_workers")
    assert report.steps == 4
    assert report.passes == 4
