"""The audit itself: running scripts, watching from inside, and what it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from headstart.audit import Check, Finding, Report, audit_script, register_check, watch
from headstart.audit.checks import CHECKS
from headstart.audit.sarif import to_sarif
from headstart.audit.scene import Scene
from headstart.core.errors import ConfigError, DataError

FAULTY = """
import sys, torch
from torch import nn
print("ARGS", sys.argv[1:], __name__, __file__ == sys.argv[0])
torch.manual_seed(0)
backbone = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU())
model = nn.Sequential(backbone, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
for p in backbone.parameters():
    p.requires_grad = False
optimizer = torch.optim.SGD(model[3].parameters(), lr=0.1)
x, y = torch.randn(64, 3, 8, 8), torch.randint(0, 4, (64,))
model.train()
for step in range(6):
    loss = nn.functional.cross_entropy(model(x), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("LOSS", float(loss.detach()))
"""


def script(folder: Path, text: str) -> Path:
    file = folder / "train.py"
    file.write_text(textwrap.dedent(text))
    return file


def run(*arguments: object, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headstart", "audit", *map(str, arguments)]
    return subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=300)


def codes(report: Report) -> list[str]:
    return [finding.code for finding in report.findings]


def test_a_script_keeps_its_output_and_standard_output_is_one_object(tmp_path: Path) -> None:
    file = script(tmp_path, FAULTY)
    done = run(file, "--json", "--", "--epochs", "3")
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    (finding,) = [f for f in said["findings"] if f["code"] == "frozen-statistics-moved"]
    assert (finding["module"], finding["line"]) == ("0.1", 12)
    assert finding["file"] == str(file)
    assert said["steps"] == 6
    assert "ARGS ['--epochs', '3'] __main__ True" in done.stderr
    plain = subprocess.run([sys.executable, file], capture_output=True, text=True)
    loss = next(line for line in plain.stdout.splitlines() if line.startswith("LOSS"))
    assert loss in done.stderr


def test_the_exit_status_follows_the_severity_that_is_asked_for(tmp_path: Path) -> None:
    file = script(tmp_path, FAULTY)
    log = tmp_path / "log.sarif"
    done = run(file, "--fail-on", "warning", "--sarif", log, "--steps", 3)
    assert done.returncode == 1, done.stderr
    assert "stopped after 3 steps" in done.stdout
    (result, *_) = json.loads(log.read_text())["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["region"]["startLine"] == 12


class Loud(Check):
    """Says how many passes there were."""

    code = "loud"
    severity = "info"

    def finish(self, scene: Scene) -> Iterator[Finding]:
        yield self.finding(f"{scene.n_passes} passes")


def test_a_check_of_ones_own(tmp_path: Path) -> None:
    register_check(Loud)
    try:
        with pytest.raises(ConfigError, match="'loud' already"):
            register_check(Loud)
        assert "loud" in codes(audit_script(script(tmp_path, FAULTY)))
    finally:
        CHECKS.remove(Loud)


def test_threads_that_wait_for_ever_end_no_audit(tmp_path: Path) -> None:
    """Neither those of the process around it, nor executors that the script never shuts down."""
    release = threading.Event()
    other = threading.Thread(target=release.wait)
    other.start()
    pools = """
        from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
        import threading, time
        done = []
        pool, processes = ThreadPoolExecutor(1), ProcessPoolExecutor(1)
        pool.submit(int).result()
        processes.submit(int).result()
        for _ in range(3):
            pool.submit(time.sleep, 0.05)
        threading.Thread(target=lambda: (time.sleep(0.3), print("its own thread"))).start()
    """
    try:
        report = audit_script(script(tmp_path, pools), seconds=30)
    finally:
        release.set()
    assert report.ending is not None
    assert report.ending.how == "end"


def test_a_check_that_fails_hides_nothing(tmp_path: Path) -> None:
    class Broken(Loud):
        code = "broken"

        def finish(self, scene: Scene) -> Iterator[Finding]:
            raise ValueError("no")

    register_check(Broken)
    try:
        report = audit_script(script(tmp_path, FAULTY))
    finally:
        CHECKS.remove(Broken)
    assert "frozen-statistics-moved" in codes(report)
    assert any("broken failed" in note for note in report.notes)


def test_watching_from_inside_leaves_torch_as_it_was() -> None:
    before = (nn.Module.train, torch.autograd.backward, nn.functional.cross_entropy)
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[:2].requires_grad_(False)
    optimizer = torch.optim.SGD(model[2].parameters(), lr=0.1)
    with watch(model) as seen:
        for _ in range(3):
            loss = nn.functional.cross_entropy(model(torch.randn(8, 4)), torch.zeros(8).long())
            loss.backward()
            optimizer.step()
    assert [f.module for f in seen.findings if f.code == "frozen-statistics-moved"] == ["1"]
    assert seen.report.steps == 3
    assert (nn.Module.train, torch.autograd.backward, nn.functional.cross_entropy) == before
    assert not torch.nn.modules.module._global_forward_hooks


def test_two_audits_at_a_time_are_refused() -> None:
    with watch(), pytest.raises(ConfigError, match="already running"), watch():
        pass
    with pytest.raises(ConfigError, match="not a str"):
        watch("model")  # type: ignore[arg-type]


def test_what_is_no_script_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        audit_script(tmp_path / "none.py")
    with pytest.raises(DataError, match="is a folder"):
        audit_script(tmp_path)
    with pytest.raises(DataError, match=r"is not valid Python: .*line 1"):
        audit_script(script(tmp_path, "def"))
    with pytest.raises(ConfigError, match="steps must be at least 1"):
        audit_script(script(tmp_path, ""), steps=0)


def test_a_module_runs_by_its_name_and_a_notebook_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "package_of_a_user"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "parts.py").write_text("import torch\nnet = torch.nn.Linear(3, 2)\n")
    source = "from .parts import net\nimport torch\nnet(torch.ones(4, 3))\n"
    (folder / "train.py").write_text(source)
    monkeypatch.chdir(tmp_path)
    report = audit_script("package_of_a_user.train")
    assert report.ending is not None
    assert (report.ending.how, report.passes) == ("end", 1)
    alone = audit_script(folder / "train.py").ending
    assert alone is not None
    assert "headstart audit package.train" in alone.message
    notebook = tmp_path / "book.ipynb"
    notebook.write_text("{}")
    with pytest.raises(DataError, match="is a notebook"):
        audit_script(notebook)
    with pytest.raises(DataError, match="cannot be read"):
        audit_script("package_of_a_user.none")
    with pytest.raises(DataError, match="is empty"):
        audit_script(folder / "__init__.py")


def test_sarif_has_what_the_standard_demands(tmp_path: Path) -> None:
    report = audit_script(script(tmp_path, FAULTY))
    log = to_sarif(report, tmp_path)
    (one,) = log["runs"]
    assert log["version"] == "2.1.0"
    ids = [rule["id"] for rule in one["tool"]["driver"]["rules"]]
    for result in one["results"]:
        assert ids[result["ruleIndex"]] == result["ruleId"]
        assert result["level"] in ("note", "warning", "error")
        place = result["locations"][0]["physicalLocation"]["artifactLocation"]
        assert place["uri"] == "train.py"


def test_a_script_that_catches_everything_is_ended(tmp_path: Path) -> None:
    file = script(
        tmp_path,
        """
        import torch
        from torch import nn
        net = nn.Linear(4, 2)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        while True:
            try:
                net(torch.randn(8, 4)).sum().backward()
                optimizer.step()
            except:
                pass
        """,
    )
    done = run(file, "--steps", 3, "--json")
    said = json.loads(done.stdout)
    assert said["ended"]["how"] == "steps"
    assert "it catches the exception that is meant to end it" in said["ended"]["message"]


def test_pages_of_the_findings_are_up_to_date() -> None:
    root = Path(__file__).resolve().parents[2]
    command = [sys.executable, root / "scripts" / "findings_pages.py", "--check"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_what_is_found_does_not_depend_on_the_network_living_on(tmp_path: Path) -> None:
    file = script(
        tmp_path,
        """
        import torch
        from torch import nn

        def main():
            body = nn.Sequential(nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.2))
            body.requires_grad_(False).eval()
            net = nn.Sequential(body, nn.Linear(8, 2), nn.Linear(2, 2))
            optimizer = torch.optim.Adam(net[1].parameters(), lr=1e-2)
            for epoch in range(2):
                net.train()
                for _ in range(4):
                    x, y = torch.randn(16, 8), torch.randint(0, 2, (16,))
                    optimizer.zero_grad()
                    nn.functional.cross_entropy(net(x), y).backward()
                    optimizer.step()

        main()
        """,
    )
    found = {f.code: (f.module, f.line) for f in audit_script(file).at_least("warning")}
    assert found["eval-undone"] == ("0", 11)
    assert found["frozen-statistics-moved"] == ("0.1", 11)
    assert found["dropout-in-frozen-part"] == ("0.2", 11)
    assert found["optimizer-misses-trainable"][0] == "2"


@pytest.mark.slow
def test_a_script_may_import_keras_before_anything_else(tmp_path: Path) -> None:
    """Keras on its PyTorch backend imports torch while it is being imported itself."""
    pytest.importorskip("keras")
    script = tmp_path / "first.py"
    script.write_text(
        "import keras, numpy as np\n"
        "model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])\n"
        "model.compile('sgd', 'mse')\n"
        "model.fit(np.ones((8, 4)), np.ones((8, 2)), verbose=0)\n"
        "print('trained')\n"
    )
    made = subprocess.run(
        [sys.executable, "-m", "headstart", "audit", str(script)],
        env={**os.environ, "KERAS_BACKEND": "torch"}, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert "crashed" not in made.stdout + made.stderr
    assert "trained" in made.stdout
