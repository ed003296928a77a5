"""``path/to/file.py:factory``: a function of the user's that returns a module."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from headstart.backbones.family import Built, Family, Request, bad_arguments, first_line
from headstart.core.errors import BackboneError


def build_file(request: Request) -> Built:
    """Run ``path/to/file.py:factory``; it returns a module, or a module and its inputs."""
    from torch import nn

    from headstart.data.inputs import Inputs

    path_text, _, function_name = request.name.rpartition(":")
    path = Path(path_text).expanduser()
    if not path.is_file():
        raise BackboneError(f"there is no file '{path}' to take a backbone from")
    factory = getattr(_import(path), function_name, None)
    if not callable(factory):
        raise BackboneError(
            f"{path} has no function '{function_name}'",
            hint="write it as path/to/file.py:function",
        )
    try:
        made = factory(**request.model_args)
    except TypeError as error:
        raise bad_arguments(request.name, error) from error
    module, own = made if isinstance(made, tuple) and len(made) == 2 else (made, None)
    if not isinstance(module, nn.Module):
        raise BackboneError(
            f"{request.name} returned a {type(made).__name__}, and a torch.nn.Module is needed",
            hint="return the module, or (module, Preprocessing(...))",
        )
    blocks = tuple(name for name, _ in module.named_children())
    if isinstance(own, Inputs):
        return Built(module, own.values(), blocks, kind=own.kind)
    return Built(module, {}, blocks)


def _import(path: Path) -> ModuleType:
    # The name is unique to the path, so that two files of one name do not meet in sys.modules,
    # where pickling and inspect look classes up.
    name = "headstart_user_" + re.sub(r"\W", "_", str(path.resolve()))
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise BackboneError(f"'{path}' is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise BackboneError(f"{path} fails on import: {first_line(error)}") from error
    return module


USER_FILE = Family(
    "file",
    "path/to/file.py:factory",
    "a function of yours that returns a torch.nn.Module",
    build_file,
    claims=lambda source: source if ".py:" in source else None,
)
