"""TabICL's pre-trained weights and its estimators, from the package ``tabicl``.

The package's code is BSD-3-Clause. Its weights lie on the Hugging Face Hub, at ``jingang/TabICL``,
and the page there names their licence; nothing of them is in headstart.
"""

from __future__ import annotations

import importlib
from functools import lru_cache
from pathlib import Path
from typing import Any

from headstart.core.errors import HeadError, MissingExtraError
from headstart.core.fingerprints import sha256_of_file
from headstart.core.wording import first_line

HUB = "jingang/TabICL"
CHECKPOINTS = {
    "classification": "tabicl-classifier-v2-20260212.ckpt",
    "regression": "tabicl-regressor-v2-20260212.ckpt",
}
"""By task: the file of the hub that is taken where none is named."""


def library() -> Any:
    """Return the package ``tabicl``.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        return importlib.import_module("tabicl")
    except ImportError:
        raise MissingExtraError("tabicl", "tabicl", "the head 'tabicl'") from None


def checkpoint_file(given: str | None, task: str) -> Path:
    """Return the file of the weights: the one that is named, or that of the hub.

    Raises:
        HeadError: there is no such file, or the hub cannot be reached.
    """
    if given is not None:
        path = Path(given).expanduser()
        if not path.is_file():
            raise HeadError(
                f"checkpoint='{given}' is not a file",
                hint=f"give TabICL's own, such as {CHECKPOINTS[task]}; None takes it from the hub",
            )
        return path.resolve()
    return hub_file(task)


def hub_file(task: str) -> Path:
    """Return the hub's file for a task, from the cache on this machine or downloaded to it.

    Raises:
        HeadError: it is not there, and the hub cannot be reached.
        MissingExtraError: the package ``tabicl``, and the hub's with it, is not installed.
    """
    library()
    import huggingface_hub as hub

    name = CHECKPOINTS[task]
    try:
        return Path(hub.hf_hub_download(HUB, name, local_files_only=True))
    except Exception:  # not in the cache on this machine
        try:
            return Path(hub.hf_hub_download(HUB, name))
        except Exception as error:
            raise HeadError(
                f"TabICL's weights, '{name}' of huggingface.co/{HUB}, are not on this machine and"
                f" cannot be downloaded ({first_line(error)[:160]})",
                hint="put the file here from a machine that can, and name it: checkpoint='FILE'",
            ) from error


@lru_cache(maxsize=8)
def _digest(path: Path, stamp: tuple[int, int]) -> str:  # noqa: ARG001
    return sha256_of_file(path)


def digest_of(path: Path) -> str:
    """Return the SHA-256 of a file, read once as long as size and time stay."""
    about = path.stat()
    return _digest(path, (about.st_size, about.st_mtime_ns))


def estimator(path: Path, task: str, *, count: int, seed: int, device: Any, x: Any, y: Any) -> Any:
    """Return TabICL with its weights and the training rows, which it reads when it predicts.

    Args:
        path: of the weights.
        task: ``classification`` or ``regression``.
        count: of views of the table that are averaged.
        seed: of their orders of columns and classes.
        device: that it runs on.
        x, y: training rows ``(n, c) float32`` and targets ``(n,)``.

    Raises:
        MissingExtraError: the package is not installed.
        HeadError: the file is no checkpoint of TabICL's for the task.
    """
    import torch

    package = library()
    kind = package.TabICLClassifier if task == "classification" else package.TabICLRegressor
    made = kind(
        n_estimators=count, random_state=seed, model_path=path, allow_auto_download=False,
        device=device,
    )  # fmt: skip
    try:
        with torch.random.fork_rng(devices=[]):  # a network draws weights before it reads them
            made.fit(x, y)
        classes = int(made.model_.max_classes)
    except Exception as error:
        raise HeadError(
            f"TabICL cannot be made of '{path.name}': {first_line(error)[:160]}",
            hint=f"give its own checkpoint for {task}, such as {CHECKPOINTS[task]}",
        ) from error
    if (classes > 0) != (task == "classification"):
        other = "regression" if task == "classification" else "classification"
        raise HeadError(
            f"'{path.name}' is TabICL's checkpoint for {other}, and the task is {task}",
            hint=f"give one such as {CHECKPOINTS[task]}",
        )
    return made


__all__ = ["CHECKPOINTS", "HUB", "checkpoint_file", "digest_of", "estimator", "hub_file", "library"]
