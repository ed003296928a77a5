"""The package as a table of contents: few names, and each loads only what it needs."""

from __future__ import annotations

import subprocess
import sys

import pytest

import headstart
import headstart.commands

COMMANDS = ("fit", "predict", "evaluate", "sweep", "examine", "finetune", "advise", "compare")
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
    assert len(headstart.__all__) <= 35
    for module in (headstart, headstart.commands):
        for name in module.__all__:
            assert getattr(module, name) is not None
            assert name in dir(module)
    for name in ("heads", "freezing", "store"):
        assert getattr(headstart, name).__name__ == f"headstart.{name}"


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
