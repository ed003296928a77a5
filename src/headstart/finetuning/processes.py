"""Starting the processes of several devices, joining them by Lightning Fabric, and ending them.

The calling process is the first device: it keeps the caller's objects, trains the caller's module
in place, and answers. The others are spawned, repeat the job from the same arguments, and write
nothing. (Fabric's own launchers put all devices into children that must send the result back, or
run the caller's script again from its top, which a notebook, a test or a second call cannot bear.
Fabric is told that its processes exist already, as it is under ``torchrun``.)
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import TYPE_CHECKING, Any

import torch

from headstart.core.errors import ConfigError, HeadstartError
from headstart.finetuning.devices import ALONE, Devices

if TYPE_CHECKING:
    from lightning.fabric import Fabric
    from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment

_TALKERS = ("lightning.fabric", "lightning.pytorch")
_LAST_WORDS = 5.0  # seconds to wait for what a failing process has to say


@dataclass(frozen=True)
class Seat:
    """The place of one process: its number, how many there are, where and on what they meet."""

    rank: int
    size: int
    kind: str
    port: int


def check_devices(count: int, device: torch.device) -> None:
    """Refuse more devices than this machine has.

    Args:
        count: how many are asked for; on a CPU one is a process.
        device: the kind; several devices leave its index to us.

    Raises:
        ConfigError: in one line.
    """
    if count == 1:
        return
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(
            (f"several devices of kind '{device.type}' cannot train together",),
            hint="use one device, or --device cpu or cuda",
        )
    if ":" in str(device):
        raise ConfigError(
            (f"device '{device}' is one device, and {count} are asked for",),
            hint=f"use --device {device.type}",
        )
    there = torch.cuda.device_count() if device.type == "cuda" else os.cpu_count() or 1
    if count > there:
        what = "CUDA devices" if device.type == "cuda" else "processors"
        raise ConfigError(
            (f"{count} devices are asked for, and this machine has {there} {what}",),
            hint=f"use --devices {there}",
        )


@contextlib.contextmanager
def joined(
    count: int, device: torch.device, follow: Callable[..., None], arguments: Sequence[Any]
) -> Iterator[Devices]:
    """Give the devices that train together; processes that were started for it end with it.

    Under ``torchrun`` its processes are joined and none is started.

    Args:
        count: how many devices.
        device: their kind.
        follow: a function of a module; the other processes call ``follow(devices, *arguments)``.
        arguments: what it needs; sent by pickle, from process to process, never from a file.

    Raises:
        ConfigError: more devices than there are, arguments that cannot be sent, or a number that
            is not ``torchrun``'s.
        HeadstartError: another process failed.
    """
    if torch.distributed.is_available() and torch.distributed.is_torchelastic_launched():
        with environment_kept():
            devices = _under_torchrun(count, device)
        # The group stays: a second job of the same script joins it again.
        yield devices
        return
    check_devices(count, device)
    if count == 1:
        yield ALONE
        return
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        sys.exit(1)  # a spawned process that runs its parent's script again; the parent tells why
    port = _free_port()
    seats = [Seat(rank, count, device.type, port) for rank in range(count)]
    threads = torch.get_num_threads()
    others = _Others(seats[1:], follow, arguments)
    try:
        with others.blamed(), environment_kept():
            others.await_ready()
            devices = Devices(_take(seats[0]))
        with others.blamed():
            yield devices
        others.finish()
    finally:
        others.end()
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
        torch.set_num_threads(threads)


class _Others:
    """The processes beside this one."""

    def __init__(
        self, seats: Sequence[Seat], follow: Callable[..., None], arguments: Sequence[Any]
    ) -> None:
        # Bytes, since an object handed to multiprocessing would share its tensors' memory, and
        # every process would step in the weights of every other.
        try:
            payload = pickle.dumps((follow, tuple(arguments)))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                (f"the data or the backbone cannot be sent to other processes: {error}",),
                hint="name them by path, define classes and functions in a module, or start the"
                " script with torchrun",
            ) from error
        context = multiprocessing.get_context("spawn")
        self._running: list[tuple[Seat, multiprocessing.process.BaseProcess, Connection]] = []
        for seat in seats:
            ours, theirs = context.Pipe(duplex=False)
            process = context.Process(
                target=_sit, args=(seat, payload, theirs), name=f"device-{seat.rank}", daemon=True
            )
            process.start()
            theirs.close()
            self._running.append((seat, process, ours))

    def await_ready(self) -> None:
        """Wait until all have started; one that dies before would never be met."""
        for seat, process, pipe in self._running:
            wait([pipe, process.sentinel])
            try:
                said = pipe.recv()
            except EOFError:
                said = None
            if said != "ready":
                raise _failed(
                    seat,
                    said
                    or "it ended before it began; a script has to make the call under"
                    " if __name__ == '__main__'",
                )

    @contextlib.contextmanager
    def blamed(self) -> Iterator[None]:
        """Where this process stumbles because another has failed, raise what that one said."""
        try:
            yield
        except (HeadstartError, KeyboardInterrupt):
            raise
        except Exception as error:
            for seat, process, pipe in self._running:
                # What breaks where processes meet is a RuntimeError of torch's.
                if pipe.poll(_LAST_WORDS if isinstance(error, RuntimeError) else 0):
                    with contextlib.suppress(EOFError):
                        raise _failed(seat, pipe.recv()) from error
                    process.join(_LAST_WORDS)
                if process.exitcode:
                    raise _failed(seat, f"exit status {process.exitcode}") from error
            raise

    def finish(self) -> None:
        """Wait for all to end by themselves."""
        for _, process, _ in self._running:
            process.join()

    def end(self) -> None:
        """End those that still run."""
        for _, process, pipe in self._running:
            if process.is_alive():
                process.kill()
            process.join()
            pipe.close()


def _failed(seat: Seat, said: str) -> HeadstartError:
    return HeadstartError(f"the process of device {seat.rank + 1} of {seat.size} failed: {said}")


def _sit(seat: Seat, payload: bytes, pipe: Connection) -> None:
    """Be one of the others, from start to end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the first process ends us
    _end_with_parent()
    try:
        follow, arguments = pickle.loads(payload)  # noqa: S301  what our own parent has just sent
        pipe.send("ready")
        follow(Devices(_take(seat)), *arguments)
    except HeadstartError as error:
        pipe.send(str(error))
        sys.exit(1)
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        pipe.send(f"{type(error).__name__}: {error} ({where.filename}:{where.lineno})")
        sys.exit(1)
    torch.distributed.destroy_process_group()


def _end_with_parent() -> None:
    """End this process when the first one is gone, even if that was killed."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def watch() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=watch, name="headstart-parent", daemon=True).start()


def _take(seat: Seat) -> Fabric:
    """Join the group, on a seat."""
    from lightning.fabric import Fabric

    fabric = Fabric(
        accelerator=seat.kind, devices=seat.size, strategy="ddp", plugins=[_environment(seat)]
    )
    with quiet(*_TALKERS):
        fabric.launch()
    return fabric


def _under_torchrun(count: int, device: torch.device) -> Devices:
    """Join the group that ``torchrun`` has started the processes of."""
    size, here = int(os.environ["WORLD_SIZE"]), int(os.environ["LOCAL_WORLD_SIZE"])
    if size != here:
        raise ConfigError(
            (f"torchrun started {size} processes, {here} of them on this machine",),
            hint="fine-tuning runs on the devices of one machine",
        )
    if count not in (1, size):
        raise ConfigError(
            (f"{count} devices are asked for, and torchrun started {size} processes",),
            hint=f"leave --devices away, or use torchrun --nproc-per-node {count}",
        )
    check_devices(size, torch.device(device.type))
    if size == 1:
        return ALONE
    from lightning.fabric import Fabric

    fabric = Fabric(accelerator=device.type, devices=size, strategy="ddp")
    with quiet(*_TALKERS):
        fabric.launch()
    return Devices(fabric)


def _environment(seat: Seat) -> ClusterEnvironment:
    """Describe the seat to Fabric, which would otherwise ask environment variables."""
    from lightning.fabric.plugins.environments.lightning import LightningEnvironment

    class Seated(LightningEnvironment):
        creates_processes_externally = True
        main_address = "127.0.0.1"
        main_port = seat.port

        def local_rank(self) -> int:
            return seat.rank

        def node_rank(self) -> int:
            return 0

        def teardown(self) -> None:
            pass

    return Seated()


@contextlib.contextmanager
def environment_kept() -> Iterator[None]:
    """Give the environment variables back as they were: Fabric and torch set some of their own."""
    before = dict(os.environ)
    try:
        yield
    finally:
        for name in set(os.environ) - set(before):
            del os.environ[name]
        os.environ.update(before)


@contextlib.contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Keep libraries from telling what they do in passing; warnings go through."""
    logs = [logging.getLogger(name) for name in names]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.WARNING)
    try:
        yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


__all__ = ["check_devices", "environment_kept", "joined", "quiet"]
