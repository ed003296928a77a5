"""The script that kills and counts, in few rounds; docs/scale.md gives its figures for twenty."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import REPOSITORY


@pytest.mark.slow
def test_a_driver_of_ray_is_killed_twice_and_nothing_is_missing_or_double() -> None:
    pytest.importorskip("ray")
    script = REPOSITORY / "benchmarks" / "kills.py"
    words = [sys.executable, str(script), "driver", "--kills", "2", "--items", "320"]
    done = subprocess.run(
        [*words, "--apart", "60"], env=dict(os.environ), capture_output=True, text=True, timeout=400
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "driver: 2 kills, 3 starts" in done.stdout
    assert "0 missing, 0 double" in done.stdout
