"""The state of a training on disk: written whole after every epoch, read without running code.

A folder with ``progress.json`` and the two safetensors files that it names with their SHA-256:
``state-N`` (weights, statistics, optimizer, average) and ``best-N`` (what is kept in the end). The
JSON is replaced last, so that a kill at any moment leaves the previous epoch.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from headstart.core.errors import ConfigError, DataError
from headstart.core.files import own_file, without_nan, write_bytes, write_json, write_text
from headstart.core.fingerprints import sha256, sha256_of_file
from headstart.core.records import to_plain
from headstart.finetuning.outcome import EpochRecord, StageOutcome, record_from

FORMAT = 1
_PROGRESS, _PLAN = "progress.json", "plan.json"
_OWN = re.compile(
    r"progress\.json|plan\.json|(?:state|best)-\d+\.safetensors|\..+\.[0-9a-f]{16}\.tmp"
)
_PLAIN = (
    "stage", "epoch", "stale", "records", "outcomes", "best", "ema_steps", "seconds", "decisions",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Saved:
    """Where a training was.

    Attributes:
        stage, epoch: the last finished epoch; ``epoch`` counts from 1, 0 is before the first.
        stale: epochs since the stage's best.
        records, outcomes: what is known so far.
        best: the record of the best epoch.
        ema_steps: how many steps the average has seen.
        seconds: wall time spent in the stage so far.
        decisions: where every stage is cut, empty where it trains from images; to decide the same
            again.
        state, best_weights: named tensors.
    """

    stage: int
    epoch: int
    stale: int
    records: tuple[EpochRecord, ...]
    outcomes: tuple[StageOutcome, ...]
    best: EpochRecord
    ema_steps: int
    seconds: float
    decisions: tuple[str, ...]
    state: Mapping[str, Tensor]
    best_weights: Mapping[str, Tensor]


class Checkpoint:
    """The checkpoint of one run.

    Args:
        folder: its folder; made when something is saved.
        identity: digest of all that decides the result; a checkpoint of another is refused.
    """

    def __init__(self, folder: Path, identity: str) -> None:
        self.folder, self.identity = folder, identity
        self._best: tuple[EpochRecord, str] | None = None
        self._number = 0

    def save(self, saved: Saved) -> None:
        """Write a state; what was saved before stays valid until this returns."""
        try:
            self._save(saved)
        except OSError as error:
            raise DataError(
                f"the checkpoint in '{self.folder}' cannot be written: {error.strerror or error}",
                hint="free some space, and repeat the same call to resume",
            ) from error

    def load(self) -> Saved | None:
        """Return the last state, or None if there is none.

        Raises:
            ConfigError: it belongs to another plan.
            DataError: it is damaged.
        """
        path = own_file(self.folder, _PROGRESS)
        if not path.is_file():
            return None
        try:
            values = json.loads(path.read_text(encoding="utf-8"))
            if values["format"] != FORMAT:
                raise ValueError(f"format {values['format']}")
            if values["identity"] != self.identity:
                raise ConfigError(
                    (f"'{self.folder}' holds unfinished training with another plan or other data",),
                    hint="choose another folder with out=DIR, or remove that one to start over",
                )
            saved = self._read(values)
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            raise DataError(
                f"the checkpoint in '{self.folder}' is damaged ({error!r})",
                hint="remove that folder to start over",
            ) from error
        self._number = int(values["number"])
        self._best = (saved.best, values["files"]["best"]["name"])
        return saved

    def describe(self, plan: Mapping[str, Any]) -> None:
        """Keep the plan beside the state, for people to read."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_json(self.folder / _PLAN, plan)
        except OSError as error:
            raise DataError(
                f"the checkpoint in '{self.folder}' cannot be written: {error.strerror or error}"
            ) from error

    def remove(self) -> None:
        """Delete it: the run is complete. Only what a checkpoint consists of is deleted."""
        with contextlib.suppress(OSError):
            for path in self._own():
                path.unlink(missing_ok=True)
            self.folder.rmdir()

    def _own(self) -> list[Path]:
        """Return the files in the folder that are a checkpoint's: the progress first."""
        if self.folder.is_symlink() or not self.folder.is_dir():
            return []
        own = [path for path in self.folder.iterdir() if _OWN.fullmatch(path.name)]
        return sorted(own, key=lambda path: path.name != _PROGRESS)

    def _save(self, saved: Saved) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._number += 1
        files = {"state": self._tensors(f"state-{self._number}", saved.state)}
        if self._best is None or self._best[0] != saved.best:
            files["best"] = self._tensors(f"best-{self._number}", saved.best_weights)
            self._best = (saved.best, files["best"]["name"])
        else:
            name = self._best[1]
            files["best"] = {"name": name, "sha256": sha256_of_file(self.folder / name)}
        values = {
            "format": FORMAT,
            "identity": self.identity,
            "number": self._number,
            "files": files,
            **{name: to_plain(getattr(saved, name)) for name in _PLAIN},
        }
        write_text(self.folder / _PROGRESS, json.dumps(without_nan(values), indent=1))
        kept = {_PROGRESS, _PLAN, *(entry["name"] for entry in files.values())}
        for path in self._own():
            if path.name not in kept:
                path.unlink(missing_ok=True)

    def _tensors(self, stem: str, tensors: Mapping[str, Tensor]) -> dict[str, str]:
        name = f"{stem}.safetensors"
        plain = {key: t.detach().cpu().contiguous() for key, t in tensors.items()}
        payload = safetensors.torch.save(plain)
        write_bytes(self.folder / name, payload)
        return {"name": name, "sha256": sha256(payload)}

    def _read(self, values: Mapping[str, Any]) -> Saved:
        found = {}
        for kind, entry in values["files"].items():
            name = str(entry["name"])
            if Path(name).name != name:
                raise ValueError(f"{name!r} is not a file name")
            payload = own_file(self.folder, name).read_bytes()
            if sha256(payload) != entry["sha256"]:
                raise ValueError(f"{name} is not the file that {_PROGRESS} names")
            found[kind] = safetensors.torch.load(payload)
        return Saved(
            stage=int(values["stage"]),
            epoch=int(values["epoch"]),
            stale=int(values["stale"]),
            records=tuple(record_from(record) for record in values["records"]),
            outcomes=tuple(StageOutcome(**outcome) for outcome in values["outcomes"]),
            best=record_from(values["best"]),
            ema_steps=int(values["ema_steps"]),
            seconds=float(values["seconds"]),
            decisions=tuple(str(value) for value in values["decisions"]),
            state=found["state"],
            best_weights=found["best"],
        )


__all__ = ["Checkpoint", "Saved"]
