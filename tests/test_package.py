"""The package as a table of contents: few names, and each loads only what it needs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import headstart
import headstart.commands

COMMANDS = (
    "fit",
    "predict",
    "evaluate",
    "update",
    "sweep",
    "examine",
    "finetune",
    "advise",
    "compare",
)
HEAVY = (
    "matplotlib",
    "lightning",
    "sklearn",
    "pandas",
    "timm",
    "torchvision",
    "scipy.stats",
    "typer",
)
"""What no command needs before it runs."""


def test_the_names_are_few_and_all_of_them_load() -> None:
    # card, export, push, serve, serving, similar, suggest and view joined 35: a command is a name.
    assert len(headstart.__all__) <= 43
    for module in (headstart, headstart.commands):
        for name in module.__all__:
            assert getattr(module, name) is not None
            assert name in dir(module)
    for name in ("heads", "freezing", "store"):
        assert getattr(headstart, name).__name__ == f"headstart.{name}"


@pytest.mark.parametrize(
    "before",
    [
        "from headstart.export.predictor import Predictor",
        "import headstart.export",
        "headstart.card",
        "headstart.export; import headstart.export.parity",
    ],
)
def test_a_room_never_takes_the_place_of_a_function(before: str) -> None:
    """Whatever imports the room ``headstart.export``, as ``card`` and ``to_torch`` do."""
    script = f"import headstart; {before}; print(headstart.export.__module__)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout == "headstart.commands.export.job\n", done.stderr


def test_the_first_use_draws_no_random_number() -> None:
    """rich draws from the global generator when it is imported."""
    code = (
        "import random, sys; before = random.getstate(); import headstart; headstart.finetune\n"
        "from headstart.core.terminal import console; console()\n"
        "print('rich' in sys.modules and random.getstate() == before)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "True"


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_loads_no_other_command(name: str) -> None:
    code = (
        "import sys, headstart\n"
        f"headstart.{name}\n"
        "print(sorted(m.split('.')[2] for m in sys.modules if m.startswith('headstart.commands.')"
        " and m.endswith('.job')))\n"
        f"print([m for m in {HEAVY} if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    jobs, heavy = done.stdout.splitlines()
    assert jobs == str(["predict" if name == "evaluate" else name])
    assert heavy == "[]"


@pytest.mark.parametrize("name", [*COMMANDS, "backbones", "cache ls", "cache gc", ""])
def test_a_help_text_loads_nothing_heavy(name: str) -> None:
    code = (
        "import sys\n"
        f"sys.argv = ['headstart', *{name.split()}, '--help']\n"
        "from headstart.commands.cli import main\n"
        "try:\n    main()\nexcept SystemExit:\n    pass\n"
        "heavy = {'torch', 'timm', 'torchvision', 'numpy', 'pyarrow', 'sklearn', 'matplotlib'}\n"
        "print(sorted(heavy & set(sys.modules)), file=sys.stderr)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "Usage: headstart" in done.stdout
    assert done.stderr.strip() == "[]"


FIT = """
import json, sys
import numpy as np
import torch
before = set(sys.modules)
import headstart
headstart.fit
named = set(sys.modules)
from headstart.core.progress import SilentReporter
draw = np.random.default_rng(0)
x, y = draw.integers(0, 255, (60, 16, 16, 3), dtype=np.uint8), np.arange(60) % 2
headstart.fit(
    {"train": (x[:40], y[:40]), "test": (x[40:], y[40:])}, "headstart/glyphs",
    cache=sys.argv[1], out=sys.argv[2], write=sys.argv[3] == "True", reporter=SilentReporter(),
)
own = set(sys.stdlib_module_names)
said = []
for modules in (named - before, set(sys.modules) - named):
    said.append(sorted(m for m in modules if m.partition(".")[0] not in own))
json.dump(said, sys.stdout)
"""

NAMED = {"headstart", "numpy", "torch", "PIL", "pyarrow", "scipy", "safetensors", "psutil",
         "xxhash", "markupsafe"}  # fmt: skip
"""What ``headstart.fit`` may import, beside the standard library, before it runs."""

RUN = {*NAMED, "platformdirs"}
"""What it may import to read, embed, train and score."""

LOOKED_FOR = {"pandas", "pytz", "dateutil", "six", "tzdata", "numexpr", "bottleneck", "cloudpickle",
              "charset_normalizer", "chardet", "dill"}  # fmt: skip
"""What pyarrow, NumPy and torch import of themselves where somebody has installed it."""

WRITTEN = {"matplotlib", "mpl_toolkits", "kiwisolver", "cycler", "contourpy", "pyparsing",
           "packaging", "dateutil", "six", "fontTools", "jinja2", "markupsafe"}  # fmt: skip
"""What the figures and the page of a run folder need beside that."""

ELSEWHERE = ("finetuning", "prefix", "sklearn", "commands.advise.job", "commands.finetune",
             "commands.compare.job", "commands.sweep", "commands.examine",
             "commands.predict.job", "study.study", "study.heads")  # fmt: skip
"""Rooms and commands that a plain fit has nothing to do with."""


def _packages(modules: list[str]) -> set[str]:
    """Return libraries by name, compiled helpers such as ``_cffi_backend`` left out."""
    return {name for m in modules if not (name := m.partition(".")[0]).startswith("_")}


@pytest.mark.parametrize("written", [False, True])
def test_a_plain_fit_imports_what_it_needs_and_nothing_else(written: bool, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FIT, str(tmp_path / "cache"), str(tmp_path / "out"),
         str(written)],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    named, run = json.loads(done.stdout)
    assert _packages(named) <= NAMED | LOOKED_FOR
    assert _packages(run) <= RUN | LOOKED_FOR | (WRITTEN if written else set())
    modules = {*named, *run}
    assert not {m for m in modules if m.startswith(("scipy.stats", "matplotlib.pyplot"))}
    for room in ELSEWHERE:
        inside = f"headstart.{room}"
        assert not {m for m in modules if m == inside or m.startswith(f"{inside}.")}, room
    if written:
        assert (tmp_path / "out" / "report.html").is_file()
