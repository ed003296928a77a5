"""A process that has run OpenVINO still answers to signals."""

from __future__ import annotations

import subprocess
import sys

import pytest

SCRIPT = """
import contextlib, gc, signal
import torch
from headstart.backbones import load_backbone
from headstart.core.arguments import Arguments
from headstart.extraction.engines import find_engine

def opened():
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3), torch.nn.Flatten(), torch.nn.Linear(288, 4))
    cut = load_backbone(net.eval(), size=8, mean=(0.5,), std=(0.5,))
    stack = contextlib.ExitStack()
    engine = find_engine("openvino")
    with torch.no_grad():
        run = stack.enter_context(engine.open([cut], "float32", torch.device("cpu")))
        run(Arguments((torch.zeros(2, 3, 8, 8),)))
    return [stack, run]

engines = [opened() for _ in range(3)]
while engines:  # the first goes first
    stack, run = engines.pop(0)
    stack.close()
    del stack, run
    gc.collect()
heard = []
signal.signal(signal.SIGTERM, lambda number, _: heard.append(number))
for _ in range(3):
    signal.raise_signal(signal.SIGTERM)
print(len(heard))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="stacks for signals are POSIX's")
def test_signals_are_heard_after_engines_have_gone() -> None:
    pytest.importorskip("openvino")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False, timeout=120
    )
    assert (done.returncode, done.stdout.strip()) == (0, "3"), done.stderr
