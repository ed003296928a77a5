"""Calls of commands as text: the one that made a run, and those that may follow it.

A command that is printed runs as it is: it names the data, the backbone and every option that is
not the default, quoted for a shell. What a command line cannot say (a module, arrays, a value that
only Python takes) is written as the call in Python, with a name in the place of each object.
"""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from headstart.backbones.families import family_of
from headstart.commands.backbone_spec import INPUTS
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions, Signature
from headstart.core.settings import Bound, command_line, options_of
from headstart.core.wording import shell

if TYPE_CHECKING:
    from headstart.backbones import Backbone


@dataclass(frozen=True)
class Commands:
    """The commands that a report names.

    Attributes:
        made: the one that made it.
        next: what may follow; they run as they are.
        later: what to do with data of the user's own, as (what for, command); the data is a
            placeholder in capitals.
    """

    made: str = ""
    next: tuple[str, ...] = ()
    later: tuple[tuple[str, str], ...] = ()

    def lines(self) -> tuple[str, ...]:
        """Return what follows as the terminal shows it: a word and a command a line."""
        named = [("next", command) for command in self.next] + list(self.later)
        width = max((len(word) for word, _ in named), default=0) + 1
        return tuple(f"{word + ':':{width}} {command}" for word, command in named)


@dataclass(frozen=True)
class Call:
    """One call of a command.

    Attributes:
        signature: of the command.
        data: its source.
        config, run, reading, backbone: its settings, as :meth:`Signature.settle` returns them.
    """

    signature: Signature[Any]
    data: Any
    config: Any
    run: RunOptions
    reading: ReadOptions
    backbone: BackboneSpec | Backbone

    def again(self, folder: Path | None = None) -> str:
        """Return this call.

        Args:
            folder: the run folder it has written, where that was not named.
        """
        run = self._run_of(self.signature)
        if folder is not None:
            run = dataclasses.replace(run, out=str(folder))
        return self._text(self.signature, self.config, run, self.reading, self.backbone)

    def then(
        self,
        command: str,
        *,
        backbone: BackboneSpec | Backbone | None = None,
        seed: int | None = None,
        **settings: Any,
    ) -> str:
        """Return a call of another command on the same data and backbone.

        Args:
            command: its name.
            backbone: another cut, or other inputs; None: the same.
            seed: in the place of that of this call.
            **settings: of its own that are not the defaults.

        Raises:
            ConfigError: it does not take these settings.
        """
        signature = signature_of(command)
        run = dataclasses.replace(self._run_of(signature), out=None)
        if seed is not None:
            run = dataclasses.replace(run, seed=seed)
        config = dataclasses.replace(signature.config, **settings)
        return self._text(signature, config, run, self.reading, backbone or self.backbone)

    def with_run(self, command: str, folder: Path, data: str, **settings: Any) -> str:
        """Return a call of ``predict`` or ``evaluate`` with the run of this call.

        Args:
            command: its name.
            folder: the run folder.
            data: a placeholder in capitals, such as ``NEW_IMAGES``.
            **settings: of the command's own that are not the defaults.
        """
        signature = signature_of(command)
        run = dataclasses.replace(self._run_of(signature), out=None)
        trusted = {"trust_code": True} if _runs_code(self.backbone) else {}
        config = dataclasses.replace(signature.config, **settings, **trusted)
        groups = (config, run, self.reading.elsewhere())
        if not _said_on_a_command_line(self.backbone):
            given = _keywords(_changed(signature, groups))
            needed = {"backbone": "backbone"} if _own(self.backbone) else {}
            return _python(signature, (data.lower(), repr(str(folder))), {**given, **needed})
        words = _command_line(signature, groups)
        return shell(["headstart", signature.name, _argument(folder), data, *words])

    def of_run(self, folder: Path | None) -> str:
        """Return this call, of ``predict`` or ``evaluate``.

        Args:
            folder: the run folder that it opened; None for a run in memory.
        """
        run = self._run_of(self.signature)
        groups = (self.config, run, self.reading)
        changed = _changed(self.signature, groups)
        named = isinstance(self.data, str | Path)
        if named and folder is not None and all(_writable(each, value) for each, value in changed):
            words = _command_line(self.signature, groups)
            source = (_argument(folder), _argument(self.data))
            return shell(["headstart", self.signature.name, *source, *words])
        data = repr(str(self.data)) if named else "data"
        made = "run" if folder is None else repr(str(folder))
        return _python(self.signature, (data, made), _keywords(changed))

    def _run_of(self, signature: Signature[Any]) -> RunOptions:
        """Return the shared settings as another command has them: what was given, of what it takes.

        The defaults of two commands may differ, so only what is not the default here is carried
        over.
        """
        taken = {
            name: value
            for name, value in _differences(self.run, self.signature.run)
            if name not in (*signature.without, *signature.hidden)
        }
        cache = taken.get("cache")
        if cache is not None and not isinstance(cache, str | Path):
            taken["cache"] = cache.place
        return dataclasses.replace(signature.run, **taken)

    def _text(
        self,
        signature: Signature[Any],
        config: Any,
        run: RunOptions,
        reading: ReadOptions,
        backbone: BackboneSpec | Backbone,
    ) -> str:
        spec = _single_inputs(backbone) if isinstance(backbone, BackboneSpec) else BackboneSpec()
        groups = (config, run, reading, dataclasses.replace(spec, source=BackboneSpec().source))
        if (
            isinstance(self.data, str | Path)
            and _said_on_a_command_line(backbone)
            and all(_writable(each, value) for each, value in _changed(signature, groups))
        ):
            words = ["--backbone", spec.source, *_command_line(signature, groups)]
            return shell(["headstart", signature.name, _argument(self.data), *words])
        named = spec.source if isinstance(backbone, BackboneSpec) and not spec.own_module else None
        data = repr(str(self.data)) if isinstance(self.data, str | Path) else "data"
        given = _keywords(_changed(signature, groups))
        return _python(signature, (data, "backbone" if named is None else repr(named)), given)


def signature_of(command: str) -> Signature[Any]:
    """Return the signature of a command by its name, from ``options.py`` of its folder.

    Commands name each other, as their users do, and import no more of each other than that.
    """
    home = {"evaluate": "predict"}.get(command, command)
    options = importlib.import_module(f"headstart.commands.{home}.options")
    return cast("Signature[Any]", getattr(options, command.upper()))


def _said_on_a_command_line(backbone: BackboneSpec | Backbone) -> bool:
    return isinstance(backbone, BackboneSpec) and not backbone.own_module


def _runs_code(backbone: BackboneSpec | Backbone) -> bool:
    """Return whether building it runs a file of code, which a run is trusted for by name."""
    source = backbone.source if isinstance(backbone, BackboneSpec) else ""
    return bool(source) and not _own(backbone) and family_of(source)[0].code is not None


def _own(backbone: BackboneSpec | Backbone) -> bool:
    """Return whether only its owner can build the backbone again."""
    if isinstance(backbone, BackboneSpec):
        return backbone.own_module
    return not backbone.origin.get("rebuildable", False)


def _single_inputs(spec: BackboneSpec) -> BackboneSpec:
    """Return the spec with every value of its inputs that has an option in that option."""
    single = {name: value for name, value in spec.preprocessing.items() if name in INPUTS}
    more = {name: value for name, value in spec.preprocessing.items() if name not in INPUTS}
    given = {name: value for name, value in single.items() if getattr(spec, name) is None}
    return dataclasses.replace(spec, preprocessing=more, **given)


def _command_line(signature: Signature[Any], groups: tuple[Any, ...]) -> list[str]:
    left_out = {*signature.without, *signature.hidden}
    kept = []
    for group in groups:
        defaults = _defaults(group, signature)
        dropped = {
            name: getattr(defaults, name) for name, _ in _differences(group, defaults)
            if name in left_out
        }  # fmt: skip
        kept.append(dataclasses.replace(group, **dropped) if dropped else group)
    return command_line(*kept, against=(signature.config, signature.run))


def _defaults(group: Any, signature: Signature[Any]) -> Any:
    own = (signature.config, signature.run)
    return next((each for each in own if type(each) is type(group)), None) or type(group)()


def _differences(group: Any, defaults: Any) -> Iterator[tuple[str, Any]]:
    for each in options_of(defaults):
        value = getattr(group, each.name)
        if _differ(value, each.default):
            yield each.name, value


def _differ(value: Any, default: Any) -> bool:
    try:
        return bool(value != default)
    except (TypeError, ValueError, RuntimeError):  # arrays and tensors have no truth
        return True


def _changed(signature: Signature[Any], groups: tuple[Any, ...]) -> list[tuple[Bound, Any]]:
    """Return every option that is not the default, but for those that say nothing of the result."""
    left_out = {*signature.without, *signature.hidden, "write", "reporter"}
    return [
        (each, getattr(group, each.name))
        for group in groups
        for each in options_of(_defaults(group, signature))
        if each.name not in left_out and _differ(getattr(group, each.name), each.default)
    ]


def _writable(each: Bound, value: Any) -> bool:
    if not each.option.cli or not _plain(value):
        return False
    if isinstance(value, Mapping):  # JSON gives lists for tuples
        return not any(isinstance(part, tuple | Path) for part in value.values())
    words = isinstance(value, tuple) and all(isinstance(part, str) for part in value)
    # A name with a comma is two names on a command line.
    return not words or each.kind is None or each.kind.parse(each.kind.write(value)) == value


def _plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _plain(part) for name, part in value.items())
    if isinstance(value, list | tuple):
        return all(map(_plain, value))
    return value is None or isinstance(value, bool | int | float | str | Path)


def _keywords(changed: list[tuple[Bound, Any]]) -> dict[str, str]:
    """Return what Python is given, by name; what is no literal has the name of its option."""
    return {each.name: _literal(value) if _plain(value) else each.name for each, value in changed}


def _literal(value: Any) -> str:
    return repr(str(value) if isinstance(value, Path) else value)


def _python(
    signature: Signature[Any], positional: tuple[str, ...], keywords: Mapping[str, str]
) -> str:
    given = ", ".join([*positional, *(f"{name}={value}" for name, value in keywords.items())])
    return f"headstart.{signature.name}({given})"


def _argument(path: str | Path) -> str:
    """Return a path as an argument, which must not look like an option."""
    text = str(path)
    return f"./{text}" if text.startswith("-") else text


__all__ = ["Call", "Commands", "signature_of"]
