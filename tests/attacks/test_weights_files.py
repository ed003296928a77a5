"""Weights files that try to run code, or pretend to be what a training script saves."""

from __future__ import annotations

import argparse
import collections
import io
import pickle
import pickletools
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from headstart.backbones.tensor_file import read_flat
from headstart.backbones.weights import load_weights
from headstart.core.errors import BackboneError


class Call:
    """Pickles as a call of a function."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Any, ...]:
        return self.function, self.arguments


class Stateful:
    """Pickles as an object with a state that holds a call."""

    def __init__(self, inner: Any) -> None:
        self.inner = inner

    def __reduce__(self) -> tuple[Any, ...]:
        return argparse.Namespace, (), {"inner": self.inner}


def calls(marker: Path) -> dict[str, Any]:
    code = f"open({str(marker)!r}, 'w').close()"
    return {
        "touch": Call(Path.touch, marker),
        "exec": Call(exec, code),
        "eval": Call(eval, code),
        "import": Call(__import__, "antigravity"),
        "getattr": Call(getattr, Path, "touch"),
        "torch": Call(torch.load, str(marker)),
        "hub": Call(torch.hub.load, "x", "y"),
        "in a Namespace": Stateful(Call(exec, code)),
        "in a defaultdict": collections.defaultdict(list, {"a": Call(exec, code)}),
        "factory": Call(collections.defaultdict, Call(exec, code)),
        "in an OrderedDict": collections.OrderedDict(a=Call(exec, code)),
    }


NAMES = list(calls(Path("x")))
PLACES: dict[str, Callable[[dict[str, Any], Any], Any]] = {
    "beside": lambda state, call: {"state_dict": state, "args": call},
    "in the optimizer": lambda state, call: {"state_dict": state, "optimizer": {"x": call}},
    "as a tensor": lambda state, call: {**state, "0.weight": call},
    "as the whole": lambda state, call: call,
    "as a key's value": lambda state, call: {"model": {**state, "extra": [call]}},
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("form", ["zip", "old", "pickle"])
def test_nothing_in_a_file_is_called(name: str, place: str, form: str, tmp_path: Path) -> None:
    marker, path = tmp_path / "executed", tmp_path / "w.pth"
    state = nn.Sequential(nn.Linear(2, 2)).state_dict()
    content = PLACES[place](dict(state), calls(marker)[name])
    if form == "pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    model = nn.Sequential(nn.Linear(2, 2))
    before = [parameter.clone() for parameter in model.parameters()]
    with pytest.raises(BackboneError) as caught:
        load_weights(model, path)
    assert "\n" not in str(caught.value)
    assert not marker.exists()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


class Settings:
    """Of a module that is not imported when the file is read."""


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("package", ["omegaconf.dictconfig", "lightning.fabric.utilities.data"])
def test_stand_ins_import_nothing(package: str, tmp_path: Path) -> None:
    """The name of a class of a known package, which need not exist."""
    path = tmp_path / "w.pth"
    stream = io.BytesIO()
    torch.save({"state_dict": {"a": torch.ones(2)}, "cfg": Settings()}, stream)
    with zipfile.ZipFile(stream) as old, zipfile.ZipFile(path, "w") as new:
        for entry in old.namelist():
            content = old.read(entry)
            if entry.endswith("data.pkl"):
                was = f"c{Settings.__module__}\nSettings\n".encode()
                assert was in content
                content = content.replace(was, f"c{package}\nSettingsThatIsNot\n".encode())
                pickletools.dis(content, io.StringIO())
            new.writestr(entry, content)
    assert list(read_flat(path)) == ["state_dict.a"]


def test_the_users_own_list_of_safe_classes_stays(tmp_path: Path) -> None:
    path = tmp_path / "w.pth"
    torch.save({"state_dict": {"a": torch.ones(2)}, "args": argparse.Namespace(x=1)}, path)
    before = torch.serialization.get_safe_globals()
    read_flat(path)
    after = torch.serialization.get_safe_globals()  # kept as a set: the order says nothing
    assert len(after) == len(before)
    assert set(after) == set(before)
    with pytest.raises(pickle.UnpicklingError):
        torch.load(path, weights_only=True)
    with torch.serialization.safe_globals([argparse.Namespace]):
        read_flat(path)
        assert torch.load(path, weights_only=True)["args"].x == 1
