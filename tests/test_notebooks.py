"""Every notebook of the documentation runs in a real kernel, and every example of its page."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "docs").rglob("*.ipynb"))
pytest.importorskip("ipykernel", reason="the kernel of notebooks is not installed")


def executed(cells: list[str], folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[list[Any]]:
    """Run cells in a kernel of their own, and return the outputs of each."""
    nbclient = pytest.importorskip("nbclient", reason="nbclient runs notebooks")
    nbformat = pytest.importorskip("nbformat")
    monkeypatch.setenv("HEADSTART_CACHE", str(folder / "cache"))
    monkeypatch.setenv(
        "PYTHONPATH", str(ROOT / "src") + os.pathsep + os.environ.get("PYTHONPATH", "")
    )
    monkeypatch.setenv("IPYTHONDIR", str(folder / "ipython"))
    notebook = nbformat.v4.new_notebook(cells=list(map(nbformat.v4.new_code_cell, cells)))
    nbclient.NotebookClient(
        notebook, timeout=300, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    ).execute()
    return [cell.outputs for cell in notebook.cells]


def cells_of(path: Path) -> list[str]:
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    return ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]


@pytest.mark.slow
@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_notebook_runs_and_shows_what_it_says(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outputs = executed(cells_of(path), tmp_path, monkeypatch)
    for cell in outputs:
        (shown,) = [each for each in cell if each.output_type == "execute_result"]
        assert "headstart-card" in shown.data["text/html"]
        assert shown.data["text/plain"]
        assert not any(each.get("name") == "stderr" for each in cell), cell
    text = json.dumps(outputs)
    assert "<script" not in text
    assert "1,797 of 1,797 images" in text or "of 1,438 images" in text  # progress, in the cell


def test_a_notebook_holds_no_outputs() -> None:
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            assert not cell.get("outputs")


def test_progress_is_one_line_that_is_updated(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code = (
        "from headstart.core import progress\n"
        "progress._NOTEBOOK_SECONDS = 0.0\n"
        "reporter = progress.console_reporter()\n"
        "reporter.note('a note')\n"
        "with reporter.task('read \\x1b[31mthings', 3, 'things') as task:\n"
        "    for _ in range(3):\n        task.advance()\n"
    )
    ((note, line),) = executed([code], tmp_path, monkeypatch)
    assert (note.name, note.text) == ("stdout", "a note\n")
    assert line.output_type == "display_data"
    assert "100 %" in line.data["text/plain"]
    assert "3 of 3 things" in line.data["text/plain"]
    assert "\x1b" not in line.data["text/plain"]


@pytest.mark.slow
@pytest.mark.parametrize("page", ["notebooks.md", "serve.md"])
def test_the_examples_of_the_page_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("lightning")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HEADSTART_CACHE", str(tmp_path / "cache"))
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    examples = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert examples
    names: dict[str, Any] = {"__name__": "docs"}
    for number, example in enumerate(examples):
        exec(compile(example, f"{page}, example {number}", "exec"), names)
    if page == "serve.md":
        assert capsys.readouterr().out.strip() == "ready"
