"""Results that need not be computed twice: trained heads and baselines, beside the feature cache.

A head is a function of rows, labels and settings; a baseline of items, labels and seed. Both are
kept under the digest of what they depend on, so that a repeated run trains nothing. What is damaged
is computed anew.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from headstart._version import __version__
from headstart.core.errors import HeadError
from headstart.core.records import Baseline, Curve, Interval, Score, to_plain
from headstart.heads import Trained, load_head

FORMAT = 1


class Results:
    """A folder of results by key.

    Args:
        folder: created with the first result.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def trained(
        self, key: Mapping[str, Any], compute: Callable[[], Trained]
    ) -> tuple[Trained, bool]:
        """Return a trained head, and whether it was there already.

        Args:
            key: everything the head depends on, in plain values.
            compute: trains it.
        """
        place = self._place("heads", key)
        try:
            values = json.loads((place / "choice.json").read_text(encoding="utf-8"))
            curves = tuple(_curve(curve) for curve in values["curves"])
            head = load_head(place)
            return Trained(head, values["chosen"], curves, tuple(values["notes"])), True
        except (OSError, ValueError, KeyError, TypeError, HeadError):
            shutil.rmtree(place, ignore_errors=True)
        made = compute()
        choice = {"curves": made.curves, "chosen": dict(made.chosen), "notes": made.notes}

        def write(folder: Path) -> None:
            made.head.save(folder)
            _write(folder / "choice.json", _dumps(choice))

        _publish(place, write)
        return made, False

    def baselines(
        self, key: Mapping[str, Any], compute: Callable[[], tuple[Baseline, ...]]
    ) -> tuple[Baseline, ...]:
        """Return baselines, computed or found."""
        place = self._place("baselines", key)
        try:
            values = json.loads((place / "baselines.json").read_text(encoding="utf-8"))
            return tuple(_baseline(value) for value in values)
        except (OSError, ValueError, KeyError, TypeError):
            shutil.rmtree(place, ignore_errors=True)
        made = compute()
        text = _dumps(made)
        _publish(place, lambda folder: _write(folder / "baselines.json", text))
        return made

    def _place(self, kind: str, key: Mapping[str, Any]) -> Path:
        described = {"format": FORMAT, "headstart": __version__, **to_plain(dict(key))}
        text = json.dumps(described, sort_keys=True, default=_in_key)
        return self.folder / kind / hashlib.sha256(text.encode()).hexdigest()[:32]


def _in_key(value: Any) -> Any:
    """Say in a key what JSON cannot say: arrays by their content, for their text leaves out most.

    Raises:
        TypeError: a value that has no such description; its text might be that of another.
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, np.ndarray):
        about = {"dtype": str(value.dtype), "shape": list(value.shape)}
        if value.dtype.hasobject:  # its bytes are addresses
            return {**about, "values": value.tolist()}
        return {**about, "sha256": hashlib.sha256(value.tobytes()).hexdigest()}
    kind = type(value).__name__
    raise TypeError(f"a result can only be kept under plain values and arrays, not a {kind}")


def _publish(place: Path, write: Callable[[Path], None]) -> None:
    """Write a result into a temporary folder that takes its place in one step, or not at all.

    A result that cannot be kept (a full disk, a read-only cache) is no reason to fail: it has been
    computed, and only a later run has to compute it again.
    """
    with suppress(OSError):
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(
            prefix=".", dir=place.parent, ignore_cleanup_errors=True
        ) as folder:
            inside = Path(folder) / "result"
            inside.mkdir()
            write(inside)
            inside.rename(place)  # fails where another process was first: then that one stays


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _dumps(value: Any) -> str:
    return json.dumps(to_plain(value), ensure_ascii=False)


def _curve(values: Mapping[str, Any]) -> Curve:
    tuples = {name: tuple(values[name]) for name in ("x", "y", "low", "high")}
    return Curve(**{**values, **tuples})


def _baseline(values: Mapping[str, Any]) -> Baseline:
    score = values["accuracy"]
    interval = None if score["interval"] is None else Interval(**score["interval"])
    return Baseline(values["name"], values["description"], Score(score["value"], interval))
