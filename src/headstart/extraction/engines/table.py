"""The table of engines: ways of running a network up to its cuts.

To add an engine, write a function that opens it and call :func:`register_engine`. Rows may not
depend on the engine beyond the tolerance of their precision, which is checked on the first batch:
the precision is part of a row's key, the engine is not. Importing this module loads no numerical
library, so that ``--help`` can list the engines.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

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
    OpenKept = Callable[
        [Sequence[Backbone], Precision, torch.device, "Slot"], AbstractContextManager[Run]
    ]


class Shelf(Protocol):
    """Keeps programs that engines have made, for later processes of this user on this machine.

    A program runs with the rights of the user, so that a shelf returns nothing but what this user
    has put there.
    """

    def find(self, about: Mapping[str, Any]) -> Path | None:
        """Return the program that depends on this; None: it is not there."""

    def keep(self, about: Mapping[str, Any], make: Callable[[Path], None]) -> Path | None:
        """Keep a program that ``make`` writes to a path; None: it cannot be kept."""


@dataclass
class Slot:
    """The place of one network's programs on a shelf.

    Attributes:
        shelf: where they are.
        about: what they depend on, but for the shape of a batch.
        found: whether a program was there already.
    """

    shelf: Shelf
    about: Mapping[str, Any]
    found: bool = False
    _checked: dict[str, Path] = field(default_factory=dict)

    def find(self, inputs: Arguments) -> Path | None:
        """Return the program for batches of this shape; None: it is not there."""
        about = self._full(inputs)
        key = str(about["shapes"])
        path = self._checked.get(key) or self.shelf.find(about)
        if path is not None:
            self.found, self._checked[key] = True, path
        return path

    def keep(self, inputs: Arguments, make: Callable[[Path], None]) -> Path | None:
        """Keep the program for batches of this shape; None: it cannot be kept."""
        return self.shelf.keep(self._full(inputs), make)

    def _full(self, inputs: Arguments) -> dict[str, Any]:
        shapes = [[list(t.shape), str(t.dtype)] for t in inputs.tensors()]
        return {**self.about, "shapes": shapes}


class EngineUnfitError(Exception):
    """Raised by an engine, on opening or at its first batch, that cannot run this network.

    The network then runs as it is written, and the reason is reported. An engine raises it rather
    than returning other rows.

    Args:
        reason: one sentence, no full stop.
    """


@dataclass(frozen=True)
class Prospect:
    """What an engine may be expected to bring, before it has been measured.

    Attributes:
        seconds: until it has run its first batch.
        gain: by precision, how many times as fast as the engine ``eager`` in that precision.
    """

    seconds: float
    gain: Mapping[str, float]


@dataclass(frozen=True)
class Engine:
    """One way of running a network.

    Attributes:
        name: what ``engine`` takes.
        summary: one line for ``--help``.
        open: from the cuts of one network, the precision and the device to a context of a function
            that returns the features of a batch at every cut. It is called in evaluation mode and
            inference mode, under autocast for half precisions. All batches have one shape, unless
            items differ in length. What it prepares for a shape, it prepares at the first batch.
        missing: says what is not installed that it needs, as an error; None: nothing.
        prospect: what ``engine='auto'`` expects of it by device; it tries no others.
        kept: does what ``open`` does where there is a shelf for what it prepares; None: it keeps
            nothing.
    """

    name: str
    summary: str
    open: Open
    missing: Callable[[], Exception | None] = lambda: None
    prospect: Mapping[str, Prospect] = field(default_factory=dict)
    kept: OpenKept | None = None


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


def engines() -> tuple[Engine, ...]:
    """Return all engines, in the order of registration."""
    return tuple(_ENGINES.values())


def engine_names() -> tuple[str, ...]:
    """Return the names of all engines."""
    return tuple(_ENGINES)


def describe_engines() -> str:
    """Return all engines with their summaries in one line, for ``--help``."""
    return " ".join(f"{engine.name}: {engine.summary}." for engine in _ENGINES.values())


__all__ = [
    "Engine",
    "EngineUnfitError",
    "Prospect",
    "Shelf",
    "Slot",
    "describe_engines",
    "engine_names",
    "engines",
    "find_engine",
    "register_engine",
]
