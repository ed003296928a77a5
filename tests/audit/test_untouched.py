"""A script computes under observation what it computes without it, to the last bit."""

from __future__ import annotations

import contextlib
import io
import random
import re
import runpy
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from headstart.audit import audit_script
from tests.audit.expected import TROUBLE

SCRIPTS = Path(__file__).with_name("scripts")
NAMES = sorted(path.stem for path in SCRIPTS.glob("*.py") if path.stem not in {"zoo", *TROUBLE})
NAMES = [name for name in NAMES if not name.startswith("trouble")]


def outcome(work: Callable[[], object]) -> tuple[str, object, object, object]:
    """Run a script with fixed seeds; return what it printed, and the random states it left."""
    random.seed(5)
    np.random.seed(5)
    torch.manual_seed(5)
    path, arguments = list(sys.path), list(sys.argv)
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            work()
    finally:
        sys.path[:], sys.argv[:] = path, arguments
        sys.modules.pop("zoo", None)
    return (
        printed.getvalue(),
        random.getstate(),
        np.random.get_state()[1].tolist(),  # type: ignore[index, union-attr]
        torch.get_rng_state().tolist(),
    )


def timeless(printed: str) -> str:
    """Leave out the times that a trainer of Hugging Face prints."""
    return re.sub(r"'\w+(_runtime|_per_second)': '?[\d.]+'?", "", printed)


@pytest.mark.slow
@pytest.mark.walk(keep=40)
@pytest.mark.parametrize("name", NAMES)
def test_a_script_prints_and_leaves_the_same(name: str) -> None:
    source = (SCRIPTS / f"{name}.py").read_text()
    for library in ("lightning", "transformers", "keras"):
        if f"import {library}" in source or f"from {library}" in source:
            pytest.importorskip(library)
    file = SCRIPTS / f"{name}.py"

    def plainly() -> None:
        sys.path.insert(0, str(SCRIPTS))
        with contextlib.suppress(RuntimeError, ValueError):  # two of the mistakes end the script
            runpy.run_path(str(file), run_name="__main__")

    outcome(plainly)  # what is imported for the first time may draw numbers
    plain = outcome(plainly)
    observed = outcome(lambda: audit_script(file))
    assert timeless(plain[0]) == timeless(observed[0])
    assert plain[1:] == observed[1:]
