"""Devices that train together: shares, what their processes tell each other, how they end."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.multiprocessing import ProcessRaisedException

from headstart.core.errors import ConfigError, HeadstartError
from headstart.finetuning.devices import Devices
from headstart.finetuning.feeds import Batch, Index
from headstart.finetuning.launch import check_devices, launch

CPU = torch.device("cpu")


class Echo:
    """A feed whose inputs are the positions of the items."""

    def batches(self, order: Index, batch_size: int, view: int) -> Iterator[Batch]:
        for start in range(0, len(order), batch_size):
            chunk = order[start : start + batch_size]
            yield chunk, (torch.from_numpy(chunk),)


@pytest.mark.parametrize("size", [1, 2, 3, 5])
@pytest.mark.parametrize(("n", "batch"), [(40, 13), (7, 3), (4, 1), (1, 8), (0, 4)])
def test_shares_are_the_batches_divided(n: int, batch: int, size: int) -> None:
    order = np.random.default_rng(0).permutation(n)
    shares = [list(Devices(rank, size).batches(Echo(), order, batch, 0)) for rank in range(size)]
    for number, parts in enumerate(zip(*shares, strict=True)):
        whole = order[number * batch : (number + 1) * batch]
        assert {count for count, _ in parts} == {len(whole)}
        mine = [share[0] for _, share in parts if share is not None]
        np.testing.assert_array_equal(np.concatenate(mine), whole)
        sizes = [0 if share is None else len(share[0]) for _, share in parts]
        assert max(sizes) - min(sizes) <= 1
    assert len(shares[0]) == -(-n // batch)


def parameters() -> list[nn.Parameter]:
    return [
        nn.Parameter(torch.zeros(2, 3)),
        nn.Parameter(torch.zeros(4)),
        nn.Parameter(torch.ones(1)),
    ]


def converse(devices: Devices) -> dict[str, object]:
    """Everything that processes tell each other; runs in all of them."""
    ours = parameters()
    if devices.main:  # the other has an empty share, and nobody uses the last parameter
        ours[0].grad, ours[1].grad = torch.full((2, 3), 2.0), torch.arange(4.0)
    devices.sum_gradients(ours)
    both = parameters()
    for p in both[:2]:
        p.grad = torch.full_like(p, float(devices.rank + 1))
    devices.sum_gradients(both)
    net = nn.BatchNorm1d(2)
    with torch.no_grad():
        net.weight.fill_(devices.rank + 5)
        net.running_mean.fill_(devices.rank + 7)
    devices.share(net)
    return {
        "once": devices.once(lambda: (devices.rank, "said")),
        "total": devices.total(torch.tensor([1.0 + devices.rank, 2.0])).tolist(),
        "empty": [None if p.grad is None else p.grad.tolist() for p in ours],
        "both": [None if p.grad is None else p.grad.unique().tolist() for p in both],
        "shared": (net.weight.tolist(), net.running_mean.tolist()),
        "rank": (devices.rank, devices.size, devices.main),
    }


def converse_as_expected(devices: Devices, expected: dict[str, object]) -> dict[str, object]:
    found = converse(devices)
    assert devices.main or found == {**expected, "rank": (1, 2, False)}, found
    return found


def fail(devices: Devices, rank: int, how: str) -> None:
    devices.once(lambda: None)
    if devices.rank == rank:
        if how == "raise":
            raise HeadstartError("the second has lost its data")
        if how == "odd":
            raise ValueError("this is no mistake of the user's")
        os.kill(os.getpid(), signal.SIGKILL)
    devices.once(lambda: None)
    devices.once(lambda: None)


def test_what_processes_tell_each_other() -> None:
    expected = {
        "once": (0, "said"),
        "total": [3.0, 4.0],
        "empty": [[[2.0] * 3] * 2, [0.0, 1.0, 2.0, 3.0], None],
        "both": [[3.0], [3.0], None],
        "shared": ([5.0, 5.0], [7.0, 7.0]),
        "rank": (0, 2, True),
    }
    environment, threads = dict(os.environ), torch.get_num_threads()
    assert launch(2, CPU, converse_as_expected, expected) == expected
    assert not multiprocessing.active_children()
    assert not torch.distributed.is_initialized()
    assert (dict(os.environ), torch.get_num_threads()) == (environment, threads)


@pytest.mark.parametrize(
    ("rank", "how", "said"),
    [
        (1, "raise", "device 2 of 2 failed: the second has lost its data"),
        pytest.param(0, "raise", "^the second has lost its data$", marks=pytest.mark.slow),
        pytest.param(1, "kill", "exit status -9", marks=pytest.mark.slow),
    ],
)
def test_a_process_that_fails_ends_the_others_with_its_words(
    rank: int, how: str, said: str
) -> None:
    with pytest.raises(HeadstartError, match=said):
        launch(2, CPU, fail, rank, how)
    assert not multiprocessing.active_children()


@pytest.mark.slow
def test_an_error_of_the_program_comes_with_its_traceback() -> None:
    with pytest.raises(ProcessRaisedException, match=r"in fail\n(.|\n)*no mistake of the user's"):
        launch(2, CPU, fail, 1, "odd")


UNGUARDED = """
import torch
from headstart.core.errors import HeadstartError
from headstart.finetuning.launch import launch
from tests.finetuning.test_devices import converse
try:
    launch(2, torch.device("cpu"), converse)
except HeadstartError as error:
    print(error)
"""


@pytest.mark.slow
def test_a_script_without_the_guard_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(UNGUARDED)
    # The script imports `converse` from these tests; PYTHONPATH need not be set at all.
    root = str(Path(__file__).resolve().parents[2])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "script.py")],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert "make the call under if __name__ == '__main__'" in done.stdout
    assert "Traceback" not in done.stderr


def where(devices: Devices) -> tuple[int, bool, object]:
    return devices.size, devices.main, devices.device


def test_one_device_starts_nothing() -> None:
    assert launch(1, torch.device("cuda:0"), where) == (1, True, None)
    assert not torch.distributed.is_initialized()


def test_the_number_of_devices_is_checked_first() -> None:
    with pytest.raises(ConfigError, match="device='cpu:0' is one device, but devices=2"):
        check_devices(2, torch.device("cpu:0"))
    with pytest.raises(ConfigError, match="kind 'mps' cannot train together"):
        check_devices(2, torch.device("mps"))
    with pytest.raises(ConfigError, match="use devices="):
        check_devices(10**6, CPU)
