"""``path/to/file.py:factory``: a function of the user's that returns a module."""

from __future__ import annotations

import importlib.util
import re
import sys
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from headstart.backbones.family import Built, Family, Request, bad_arguments
from headstart.core.errors import BackboneError
from headstart.core.fingerprints import stamp
from headstart.core.wording import first_line


def build_file(request: Request) -> Built:
    """Run ``path/to/file.py:factory``; it returns a module, or a module and its inputs."""
    from torch import nn

    from headstart.data.inputs import Inputs

    path, function_name = code_file(request.name), request.name.rpartition(":")[2]
    content = _read(path)
    code = stamp(path, content)
    if request.code_sha256 not in (None, code["sha256"]):
        raise BackboneError(
            f"'{path}' is not the expected code file: its SHA-256 is {code['sha256'][:12]}…,"
            f" expected {str(request.code_sha256)[:12]}…"
        )
    factory = getattr(_import(path, content), function_name, None)
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
            f"{request.name} returned a {type(made).__name__}, expected a torch.nn.Module",
            hint="return the module, or (module, Preprocessing(...))",
        )
    blocks = tuple(name for name, _ in module.named_children())
    if isinstance(own, Inputs):
        return Built(module, own.values(), blocks, kind=own.kind, code=code)
    return Built(module, {}, blocks, code=code)


def code_file(name: str) -> Path:
    """Return the file of ``path/to/file.py:factory``."""
    try:
        return Path(name.rpartition(":")[0]).expanduser()
    except RuntimeError as error:  # the home of an unknown user
        raise BackboneError(f"'{name}' cannot be found: {error}") from error


def _read(path: Path) -> bytes:
    if not path.is_file():
        raise BackboneError(f"there is no file '{path}' to take a backbone from")
    try:
        return path.read_bytes()
    except OSError as error:
        raise BackboneError(f"'{path}' cannot be read: {error.strerror}") from error


class _Source(SourceFileLoader):
    """Runs the very bytes whose digest was taken: not the file as it is now, nor a ``.pyc``."""

    def __init__(self, name: str, path: Path, content: bytes) -> None:
        super().__init__(name, str(path))
        self._content = content

    def get_code(self, fullname: str) -> CodeType:  # noqa: ARG002
        code: CodeType = self.source_to_code(self._content, self.path)
        return code


def _import(path: Path, content: bytes) -> ModuleType:
    # The name is unique to the path, so that two files of one name do not meet in sys.modules,
    # where pickling and inspect look classes up.
    name = "headstart_user_" + re.sub(r"\W", "_", str(path.resolve()))
    loader = _Source(name, path.resolve(), content)
    spec = importlib.util.spec_from_file_location(name, path, loader=loader)
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
    code=code_file,
)
