"""A file of weights: its tensors, their names, and what it says of its inputs.

Reading never runs code from the file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from headstart.backbones.unreadable import (
    no_file,
    no_tensors,
    refuse_other_formats,
    unreadable,
)
from headstart.core.errors import BackboneError
from headstart.core.wording import quoted
from headstart.data.inputs import Inputs, required_fields

_NO_WEIGHTS = re.compile(
    r"(optimizers?|optim|opt|lr_schedulers?|schedulers?|sched|scaler|amp_scaler|grad_scaler|amp|loops"
    r"|callbacks|hyper_parameters|hparams|args|config|cfg|rng\w*|metrics?|history|meta)(_states?)?"
)
"""Keys under which training scripts keep other things than weights."""

_INERT = (
    "argparse.Namespace",
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core")
      for name in ("scalar", "_reconstruct")),
    "numpy.dtype", "numpy.ndarray", "_codecs.encode", "collections.defaultdict",
    "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib.Path", "pathlib.PurePosixPath",
    "pathlib._local.PosixPath", "pathlib._local.WindowsPath", "datetime.datetime",
    "torch.torch_version.TorchVersion", "easydict.EasyDict", "addict.dict.Dict",
)  # fmt: skip
_INERT_PACKAGES = (
    "numpy.dtypes", "omegaconf", "lightning", "lightning_fabric", "pytorch_lightning", "typing",
    "ml_collections", "yacs.config", "mmengine.config", "mmcv.utils.config",
)  # fmt: skip
"""What training scripts keep beside the weights. Stand-ins that do nothing take their place."""

_DEPTH = 4
"""How deep mappings are searched for tensors."""

METADATA_KEY = "headstart.preprocessing"
"""Where a safetensors file may carry its preprocessing, as a JSON object."""


def read_tables(path: Path) -> dict[str, dict[str, Tensor]]:
    """Read every mapping of tensors in a file, but those of optimizers and the like.

    Returns:
        Mappings from names to tensors, by the keys under which they lie with a dot after each:
        ``state_dict.``, or nothing for the outermost one, which is the only one of safetensors.

    Raises:
        BackboneError: there is no such file, or it holds no tensors that can be read.
    """
    if not path.is_file():
        raise no_file(path)
    if _is_torch_file(path):
        return _read_torch(path)
    refuse_other_formats(path)
    try:
        with safe_open(str(path), framework="pt") as handle:
            return {"": {name: handle.get_tensor(name) for name in handle.keys()}}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise BackboneError(
            f"{str(path)!r} is not a readable safetensors file ({error})",
            hint="check that the file is complete: download or copy it again",
        ) from error


def read_flat(path: Path) -> dict[str, Tensor]:
    """Read a file as :func:`read_tables` does, keys and names joined by dots.

    Raises:
        BackboneError: as there.
    """
    tables = read_tables(path)
    return {key + name: tensor for key, table in tables.items() for name, tensor in table.items()}


def choose_table(
    tables: Mapping[str, Mapping[str, Tensor]], names: Collection[str], path: Path
) -> Mapping[str, Tensor]:
    """Return, of several mappings of tensors in a file, the one with most of ``names``.

    Raises:
        BackboneError: several have as many, with other values.
    """
    known = set(names)
    held = {each: (len(table.keys() & known), len(table)) for each, table in tables.items()}
    most = max(held.values())
    best = [each for each in tables if held[each] == most or (most[0] and held[each][0] == most[0])]
    if len(best) > 1 and not _equal(*(tables[each] for each in best)):
        keys = [each.rstrip(".") for each in best if each]
        raise BackboneError(
            f"{str(path)!r} holds weights under {quoted(keys)}",
            hint=f"choose one with rename={{{keys[0]!r}: ''}}",
        )
    return tables[best[0]]


def _equal(first: Mapping[str, Tensor], *others: Mapping[str, Tensor]) -> bool:
    return all(
        other.keys() == first.keys() and all(torch.equal(first[n], other[n]) for n in first)
        for other in others
    )


def inputs_in(weights: Path | None, kind: type[Inputs]) -> dict[str, Any]:
    """Read the values of the inputs that a safetensors file carries in its metadata, if it does.

    Raises:
        BackboneError: they are not values of this kind of inputs.
    """
    if weights is None or weights.suffix != ".safetensors":
        return {}
    try:
        with safe_open(weights, framework="pt") as file:
            text = (file.metadata() or {}).get(METADATA_KEY)
    except (OSError, SafetensorError):
        return {}  # loading the weights reports what is wrong with the file
    if text is None:
        return {}
    try:
        values = json.loads(text)
        kind(**values)
    except (ValueError, TypeError) as error:
        needed = [f"{name}=…" for name in required_fields(kind)]
        raise BackboneError(
            f"the metadata '{METADATA_KEY}' of {weights} is not a preprocessing of {kind.unit}"
            f" ({error})",
            hint=f"pass {', '.join(needed) or 'inputs=…'} instead, or repair the file",
        ) from error
    return dict(values)


def _is_torch_file(path: Path) -> bool:
    """Tell torch files by content: a zip archive, or the pickle of the older format.

    A safetensors file begins with the length of its header, which may look like a pickle, and
    goes on with a brace.
    """
    with path.open("rb") as handle:
        head = handle.read(9)
    return head.startswith(b"PK\x03\x04") or (head[:1] == b"\x80" and head[8:] != b"{")


def _read_torch(path: Path) -> dict[str, dict[str, Tensor]]:
    try:
        with _stand_ins(path):
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the unpickler raises many kinds
        raise unreadable(path, error) from error
    tables = {key: table for key, table in _tables(content) if table}
    if not tables:
        raise no_tensors(path, content)
    return tables


@contextmanager
def _stand_ins(path: Path) -> Iterator[None]:
    """Let torch put objects that do nothing in the place of what is no tensor.

    Only for classes that training scripts commonly save; torch refuses a file with any other. The
    classes themselves are neither imported nor called.
    """
    scan = getattr(torch.serialization, "get_unsafe_globals_in_checkpoint", None)
    if scan is None:  # torch before 2.6
        yield
        return
    try:
        found = set(scan(path))
    except Exception:  # the older format, or damage, which loading reports
        found = set(_INERT)
    inert = [
        name
        for name in found
        if name in _INERT or any(name.startswith(package + ".") for package in _INERT_PACKAGES)
    ]
    with torch.serialization.safe_globals([(type("Inert", (_Inert,), {}), n) for n in inert]):
        yield


class _Inert:
    """Takes any arguments and any state, and does nothing with them."""

    def __new__(cls, *_args: Any, **_kwargs: Any) -> _Inert:
        return super().__new__(cls)

    def __init__(self, *_args: Any, **_kwargs: Any) -> None:
        pass

    def __setstate__(self, _state: Any) -> None:
        pass

    def __setitem__(self, _key: Any, _value: Any) -> None:
        pass


def _tables(content: Any, at: str = "", depth: int = 0) -> Iterator[tuple[str, dict[str, Tensor]]]:
    """Yield every mapping of tensors, the outermost first, with the keys under which it lies."""
    if not isinstance(content, Mapping) or depth > _DEPTH:
        return
    named = {key: value for key, value in content.items() if isinstance(key, str)}
    yield at, {key: value for key, value in named.items() if isinstance(value, Tensor)}
    for key, value in named.items():
        if not _NO_WEIGHTS.fullmatch(key):
            yield from _tables(value, f"{at}{key}.", depth + 1)


__all__ = [
    "METADATA_KEY",
    "choose_table",
    "inputs_in",
    "read_flat",
    "read_tables",
]
