"""How to run a backbone over items: the settings of extraction. Imports nothing heavy."""

from __future__ import annotations

import typing
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.core.errors import ConfigError
from headstart.core.records import INT8, Precision, Storage
from headstart.core.settings import check, option
from headstart.core.wording import first_line
from headstart.extraction.engines import AUTO, describe_engines, engine_names

if TYPE_CHECKING:
    import torch

_RUNNING = "Running"


_SHORT = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def _describe() -> str:
    return f"auto: the fastest for the job. {describe_engines()}"


@dataclass(frozen=True)
class Extraction:
    """How to run a backbone over items.

    Attributes:
        batch_size: items per forward pass; 64 keeps the activations of a ResNet-50 at 224 px under
            2 GB. On a CPU a pass takes fewer images where the processor caches no more.
        precision: of the forward pass. ``float32`` (the default) is reproducible to rounding on
            every machine; ``bfloat16`` (``bf16``) and ``float16`` (``fp16``) run under autocast,
            ``tf32`` with these products on CUDA. It is part of the cache key. ``auto`` takes
            bfloat16 for jobs of more than a few seconds where the processor has instructions for
            it, a trial shows that it is faster, and rows stay within 2 % of those in float32.
            ``int8`` is of networks that were calibrated, see :mod:`headstart.extraction.int8`.
            Features leave the network as float32 in any case.
        storage: how the cache keeps rows: ``float32``; ``float16`` (half the size, about three
            digits); ``int8`` with a scale per row (a quarter, about two digits). Part of the key.
        device: ``auto`` takes a CUDA device if there is one, else the CPU. ``cuda:0,cuda:1`` are
            several, ``cuda:all`` all that torch sees: each has a replica of the network, and takes
            the next batch when it is free. Rows are those of one of them.
        engine: how the network runs up to its cuts; see :mod:`headstart.extraction.engines`.
            ``auto`` chooses by the size of the job. Rows do not depend on it beyond the tolerance
            of their precision.
        workers: threads that decode; None: the processors of this process, at most 8.
    """

    batch_size: int = option(
        64,
        "Items per forward pass. On a CPU, large images go through in smaller passes.",
        at_least=1,
        panel=_RUNNING,
    )
    precision: Precision = option(
        "float32",
        "Precision of the forward pass. auto: bfloat16 if it is faster and as good. int8:"
        " calibrated on training items, only by fit.",
        choices=(AUTO, *typing.get_args(Precision), *_SHORT),
        panel=_RUNNING,
    )
    storage: Storage = option("float32", "How the cache stores features.", panel=_RUNNING)
    device: str = option(
        "auto",
        "auto, cpu, cuda, mps, cuda:1, several as cuda:0,cuda:1, or cuda:all.",
        panel=_RUNNING,
    )
    engine: str = option(AUTO, _describe, choices=lambda: (AUTO, *engine_names()), panel=_RUNNING)
    workers: int | None = option(
        None,
        "Number of threads that decode items.",
        shown="one per processor, at most 8",
        at_least=1,
        panel=_RUNNING,
    )

    def __post_init__(self) -> None:
        short = _SHORT.get(self.precision)
        if short is not None:
            object.__setattr__(self, "precision", short)
        check(self)
        if self.precision == INT8 and self.engine not in (AUTO, "openvino"):
            raise ConfigError(
                (f"precision 'int8' runs in OpenVINO, and engine is {self.engine!r}",),
                hint="omit engine",
            )

    def check_precision(self, device: torch.device) -> None:
        """Refuse a precision that is not settled, or that a device does not have.

        Raises:
            ConfigError: it is ``auto``, or ``tf32`` off CUDA.
        """
        if self.precision == AUTO:
            raise ConfigError(
                ("precision='auto' has to be resolved before this call",),
                hint="give a precision, or use FeatureCache.features or a command",
            )
        if self.precision == "tf32" and device.type != "cuda":
            raise ConfigError(
                (f"precision 'tf32' needs a CUDA device, and this is {device}",),
                hint="use precision='float32' or 'bfloat16'",
            )

    def resolve_device(self) -> torch.device:
        """Return the device to run on; of several the first.

        Raises:
            ConfigError: torch does not know it, or it is not available.
        """
        return self.resolve_devices()[0]

    def resolve_devices(self) -> tuple[torch.device, ...]:
        """Return all devices to run on.

        Raises:
            ConfigError: torch does not know one, or it is not available.
        """
        import torch

        if self.device == "auto":
            return (torch.device("cuda" if torch.cuda.is_available() else "cpu"),)
        if self.device == "cuda:all":
            names = [f"cuda:{i}" for i in range(torch.cuda.device_count())] or ["cuda"]
        else:
            names = [name.strip() for name in self.device.split(",")]
        found = tuple(map(_usable, names))
        twice = [str(d) for d in found if d.type != "cpu" and found.count(d) > 1]
        if twice:
            raise ConfigError((f"device names {twice[0]} twice",), hint="name each device once")
        return found


def _usable(name: str) -> torch.device:
    """Return the device of a name.

    Raises:
        ConfigError: torch does not know it, or it is not available.
    """
    import torch

    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ConfigError(
            (f"device '{name}' cannot be used: torch does not know it",),
            hint="expected auto, cpu, cuda, mps, cuda:1, several with commas between them, or"
            " cuda:all",
        ) from error
    kinds = {"cuda": torch.cuda, "mps": torch.backends.mps}
    if device.type in kinds and not kinds[device.type].is_available():
        raise ConfigError(
            (f"device '{name}' cannot be used: torch finds no {device.type.upper()} device here",),
            hint="use device='cpu'",
        )
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = first_line(error)
        raise ConfigError(
            (f"device '{name}' cannot be used: {reason}",), hint="use device='cpu'"
        ) from error
    return device


__all__ = ["Extraction", "Precision", "Storage"]
