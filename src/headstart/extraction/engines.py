"""Engines: ways of running a network up to its cuts, in one table.

To add an engine, write a function that opens it and call :func:`register_engine`. Rows may not
depend on the engine beyond the tolerance of their precision, which the pipeline checks on the first
batch: the precision is part of a row's key, the engine is not. Importing this module loads no
numerical library, so that ``--help`` can list the engines.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from headstart.core.errors import ConfigError
from headstart.core.wording import did_you_mean

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from headstart.backbones import Backbone
    from headstart.core.arguments import Arguments
    from headstart.core.records import Precision

    Run = Callable[[Arguments], Sequence[Tensor]]
    Open = Callable[[Sequence[Backbone], Precision, torch.device], AbstractContextManager[Run]]


@dataclass(frozen=True)
class Engine:
    """One way of running a network.

    Attributes:
        name: what ``engine`` takes.
        summary: one line for ``--help``.
        open: from the cuts of one network, the precision and the device to a context of a function
            that returns the features of a batch at every cut. It is called in evaluation mode and
            inference mode, under autocast for half precisions. All batches have one shape, unless
            items differ in length.
    """

    name: str
    summary: str
    open: Open


_ENGINES: dict[str, Engine] = {}


def register_engine(engine: Engine) -> Engine:
    """Enter an engine in the table; a known name is replaced."""
    _ENGINES[engine.name] = engine
    return engine


def find_engine(name: str) -> Engine:
    """Return the engine of this name.

    Raises:
        ConfigError: there is none; with the nearest names.
    """
    if name not in _ENGINES:
        near = did_you_mean(name, _ENGINES)
        raise ConfigError(
            (f"engine must be one of {', '.join(_ENGINES)}, not {name!r}",), hint=near
        )
    return _ENGINES[name]


def engine_names() -> tuple[str, ...]:
    """Return the names of all engines."""
    return tuple(_ENGINES)


def describe_engines() -> str:
    """Return all engines with their summaries in one line, for ``--help``."""
    return " ".join(f"{engine.name}: {engine.summary}." for engine in _ENGINES.values())


def arranged(inputs: Arguments) -> Arguments:
    """Lay images out with their channels last: convolutions run faster, and values are equal."""
    import torch

    def arrange(tensor: Tensor) -> Tensor:
        images = tensor.ndim == 4 and tensor.device.type in {"cpu", "cuda"}
        return tensor.contiguous(memory_format=torch.channels_last) if images else tensor

    return inputs.map(arrange)


@contextlib.contextmanager
def _eager(
    cuts: Sequence[Backbone],
    precision: Precision,  # noqa: ARG001
    device: torch.device,  # noqa: ARG001
) -> Iterator[Run]:
    from headstart.backbones import features_of

    yield lambda inputs: features_of(cuts, arranged(inputs))


@contextlib.contextmanager
def _compiled(
    cuts: Sequence[Backbone],
    precision: Precision,  # noqa: ARG001
    device: torch.device,  # noqa: ARG001
) -> Iterator[Run]:
    from headstart.backbones.backbone import compiled_features

    with compiled_features(cuts) as run:
        yield lambda inputs: run(arranged(inputs))


EAGER = register_engine(Engine("eager", "run the network as it is written", _eager)).name
register_engine(
    Engine("compile", "compile it first, which pays for tens of thousands of items", _compiled)
)

__all__ = [
    "EAGER",
    "Engine",
    "arranged",
    "describe_engines",
    "engine_names",
    "find_engine",
    "register_engine",
]
