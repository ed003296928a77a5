"""Run a function on several devices, one process each, started and watched by torch.

``torch.multiprocessing.spawn`` starts the processes, or ``torchrun`` has started them already. With
a single device the function is simply called.

Lightning Fabric's launcher is the same call of torch's behind seconds of imports in every process,
and adds nothing that is needed here.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import pickle
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
from torch import distributed
from torch.multiprocessing.spawn import ProcessException, ProcessExitedException, spawn

from headstart.core.errors import ConfigError, HeadstartError
from headstart.core.scratch import scratch_folder
from headstart.finetuning.devices import ALONE, Devices

T = TypeVar("T")

_RESULT, _FAILURE, _MEETING = "result", "failure", "meeting"


def launch(count: int, device: torch.device, function: Callable[..., T], *arguments: Any) -> T:
    """Call ``function(devices, *arguments)`` on every device; return the first one's result.

    With one device, and in the processes of ``torchrun``, the call is made in this process.
    Otherwise every device has a process of its own: function, arguments and result are pickled,
    and what the function changes in its arguments does not change them here.

    Args:
        count: how many devices.
        device: their kind; several devices have no index.
        function: of a module that can be imported.
        arguments: what it needs beside the :class:`~headstart.finetuning.devices.Devices`.

    Raises:
        ConfigError: more devices than there are, something that cannot be pickled, or a number
            that is not ``torchrun``'s.
        HeadstartError: what the first device raised, or why another process failed.
        torch.multiprocessing.ProcessRaisedException: any other error, with its traceback.
    """
    if distributed.is_available() and distributed.is_torchelastic_launched():
        return function(_join_torchrun(count, device), *arguments)
    check_devices(count, device)
    if count == 1:
        return function(ALONE, *arguments)
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)  # a spawned process that runs its parent's script again; the parent says why
    try:
        payload = pickle.dumps((function, arguments))
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise ConfigError(
            (f"the data or the backbone cannot be sent to other processes: {error}",),
            hint="name them by path, or define classes and functions in a module; or start the"
            f" script with torchrun --nproc-per-node {count}",
        ) from error
    with scratch_folder() as folder:
        before = set(multiprocessing.active_children())
        try:
            spawn(_call, (count, device.type, payload, folder), nprocs=count)  # type: ignore[no-untyped-call]
        except ProcessException as error:
            raise _failure(count, folder, error) from error
        finally:  # where this process was interrupted, they still run
            for process in set(multiprocessing.active_children()) - before:
                process.kill()
                process.join()
        return cast(T, pickle.loads((folder / _RESULT).read_bytes()))  # noqa: S301  our own


def check_devices(count: int, device: torch.device) -> None:
    """Refuse more devices than this machine has.

    Args:
        count: how many devices; on a CPU one is a process.
        device: their kind.

    Raises:
        ConfigError: in one line.
    """
    if count == 1:
        return
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(
            (f"several devices of kind '{device.type}' cannot train together",),
            hint="use devices=1, or device='cpu' or 'cuda'",
        )
    if ":" in str(device):
        raise ConfigError(
            (f"device='{device}' is one device, but devices={count}",),
            hint=f"use device='{device.type}'",
        )
    present = torch.cuda.device_count() if device.type == "cuda" else os.cpu_count() or 1
    if count > present:
        what = "CUDA devices" if device.type == "cuda" else "processors"
        raise ConfigError(
            (f"devices={count}, but this machine has {present} {what}",),
            hint=f"use devices={present}",
        )


def _call(rank: int, count: int, kind: str, payload: bytes, folder: Path) -> None:
    """Be one of the processes: meet the others, call the function, leave result or failure.

    By file: a queue would be read only when all processes have ended, and a result that does not
    fit into its pipe would keep the first one from ending.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        torch.set_num_threads(max(1, (os.cpu_count() or 1) // count))
    try:
        function, arguments = pickle.loads(payload)  # noqa: S301  from our own parent
        devices = _join(kind, rank, count, local=rank, meeting=f"file://{folder / _MEETING}")
        result = function(devices, *arguments)
    except HeadstartError as error:
        # The first failure counts: where processes wait for each other, others follow from it.
        with contextlib.suppress(FileExistsError), (folder / _FAILURE).open("xb") as file:
            pickle.dump((rank, error), file)
        sys.exit(1)
    if rank == 0:
        (folder / _RESULT).write_bytes(pickle.dumps(result))
    distributed.destroy_process_group()


def _failure(count: int, folder: Path, exited: ProcessException) -> Exception:
    """Return the error that ended the processes."""
    rank, failure = exited.error_index, folder / _FAILURE
    if failure.exists():
        rank, error = pickle.loads(failure.read_bytes())  # noqa: S301  our own
        if rank == 0:
            return cast(HeadstartError, error)
        said = str(error)
    elif not isinstance(exited, ProcessExitedException):
        return exited
    elif exited.exit_code == 1:
        said = (
            "it exited before it started; a script has to make the call under if __name__ =="
            " '__main__'"
        )
    else:
        said = f"exit status {exited.exit_code}"
    return HeadstartError(f"the process of device {rank + 1} of {count} failed: {said}")


def _join_torchrun(count: int, device: torch.device) -> Devices:
    """Join the processes that ``torchrun`` has started."""
    size, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if size != here:
        raise ConfigError(
            (f"torchrun started {size} processes, {here} of them on this machine",),
            hint="fine-tuning runs on the devices of one machine",
        )
    if count not in (1, size):
        raise ConfigError(
            (f"devices={count}, but torchrun started {size} processes",),
            hint=f"omit devices, or use torchrun --nproc-per-node {count}",
        )
    check_devices(size, torch.device(device.type))
    if size == 1:
        return ALONE
    # The process group stays: a second job of the same script uses it again.
    rank, local = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    return _join(device.type, rank, size, local=local, meeting="env://")


def _join(kind: str, rank: int, size: int, *, local: int, meeting: str) -> Devices:
    """Join the process group, with one device a process."""
    device = torch.device(kind, local) if kind == "cuda" else torch.device(kind)
    if kind == "cuda":
        torch.cuda.set_device(device)
    if not distributed.is_initialized():
        backend = "nccl" if kind == "cuda" else "gloo"
        distributed.init_process_group(backend, meeting, rank=rank, world_size=size)
    return Devices(rank, size, device)


__all__ = ["check_devices", "launch"]
