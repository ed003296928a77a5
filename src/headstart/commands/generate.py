"""The command line out of settings dataclasses: flags, help texts, and messages in terms of flags.

A command is a function whose parameters are settings dataclasses; the user sees a flag per field::

    @generated(FIT)
    def fit(data: Data, backbone: BackboneSpec, config: FitConfig, run: RunOptions) -> None: ...

Lower rooms name Python parameters in their messages (``use pooling='avg'``). Here these become the
flags of the command that runs (``use --pooling avg``).
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import functools
import importlib
import inspect
import re
import shlex
import sys
import typing
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from headstart.commands.backbone_spec import BACKBONE
from headstart.commands.console import Printing, reporter
from headstart.commands.settings import DATA, RUNNING, RunOptions, Signature
from headstart.core.errors import ConfigError, HeadstartError
from headstart.core.progress import Reporter
from headstart.core.settings import Bound, Fault, options_of, settle
from headstart.core.wording import any_of

_PANELS: dict[str | None, int] = {None: 0, BACKBONE: 2, DATA: 3, RUNNING: 4}
"""The order of the panels of a help text; those of a command's own come before the shared ones."""

_CHOICES_IN_METAVAR = 12  # characters; longer lists of choices follow the help text


def _sources(*built_in: str) -> str:
    """Describe what data is read from: what comes with the package, and what was registered."""
    registered = sys.modules.get("headstart.data.source")  # nothing can be where it is not loaded
    more = [] if registered is None else [kind.name for kind in registered.registered_sources()]
    text = any_of([*built_in, *more, "the word digits or photographs"])
    return f"{text[0].upper()}{text[1:]}."


Data = Annotated[
    str,
    typer.Argument(
        help=_sources(
            "a folder of class folders (with or without train/ and val/ or test/ above them)",
            "a CSV or Parquet file",
            "a folder of train.* and test.*",
            "tar files of WebDataset",
            "an address of any of these (s3://bucket/photos)",
        ),
        show_default=False,
    ),
]
Items = Annotated[
    str,
    typer.Argument(
        help=_sources(
            "an image",
            "a folder of images or of .txt files",
            "a CSV or Parquet file",
            "tar files of WebDataset",
            "an address of any of these (s3://bucket/photos)",
        ),
        show_default=False,
    ),
]
RunOrData = Annotated[
    str,
    typer.Argument(
        metavar="RUN|DATA",
        help=_sources(
            "a run folder", "a folder of images or of .txt files", "a CSV or Parquet file"
        ),
        show_default=False,
    ),
]
RunFolder = Annotated[
    Path,
    typer.Argument(
        metavar="RUN", help="A run folder, made by fit, sweep or finetune.", show_default=False
    ),
]
FittedRun = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder, made by fit.", show_default=False)
]


def generated(
    signature: Signature[Any] | str,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Turn a function of settings dataclasses into one that typer can make a command of.

    Args:
        signature: of the command: its defaults, and the shared options that it does not take; or
            only its name, for a command with no settings of its own.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        hints = typing.get_type_hints(command, include_extras=True)
        groups = {
            name: _defaults(hints[name], signature)
            for name in inspect.signature(command).parameters
            if dataclasses.is_dataclass(hints[name])
        }
        without = () if isinstance(signature, str) else (*signature.without, *signature.hidden)
        defaults = {} if isinstance(signature, str) else signature.shown
        shown = {
            each.name: _with_default(each, defaults.get(each.name))
            for group in groups.values()
            for each in options_of(group)
            if each.option.cli and each.name not in without
        }
        refused = _refused(signature, groups, shown)
        who = signature if isinstance(signature, str) else signature.name

        @functools.wraps(command)
        def run(**values: Any) -> None:
            try:
                known = {**shown, **refused}  # those are given, so that the job says why not
                given = _parse({name: values.pop(name) for name in known}, known)
                settled = settle(who, given, *groups.values())
                values.update(zip(groups, settled, strict=True))
                command(**_with_reporter(values, shown))
            except HeadstartError as error:
                raise in_flags(error, shown) from error

        # Typer breaks lines where the docstring does, whatever the width of the terminal.
        paragraphs = (command.__doc__ or "").split("\n\n")
        run.__doc__ = "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
        run.__signature__ = _expanded(command, hints, groups, shown, refused)  # type: ignore[attr-defined]
        run.__annotations__ = {
            name: parameter.annotation
            for name, parameter in run.__signature__.parameters.items()  # type: ignore[attr-defined]
        } | {"return": None}
        return run

    return decorate


def _refused(
    signature: Signature[Any] | str, groups: Mapping[str, Any], shown: Mapping[str, Bound]
) -> dict[str, Bound]:
    """Return the shared options that a command refuses with a reason; help does not show them."""
    if isinstance(signature, str):
        return {}
    flags = {flag for each in shown.values() for flag in each.flags}
    return {
        each.name: each
        for group in groups.values()
        for each in options_of(group)
        if each.option.cli and each.name in signature.without and not flags & set(each.flags)
    }


def _with_default(each: Bound, text: str | None) -> Bound:
    if text is None:
        return each
    return each._replace(option=dataclasses.replace(each.option, shown=text))


def _defaults(kind: Any, signature: Signature[Any] | str) -> Any:
    """Return the instance whose values are the defaults of a group of options."""
    own = () if isinstance(signature, str) else (signature.config, signature.run)
    return next((group for group in own if type(group) is kind), None) or kind()


def _expanded(
    command: Callable[..., None],
    hints: Mapping[str, Any],
    groups: Mapping[str, Any],
    shown: Mapping[str, Bound],
    refused: Mapping[str, Bound],
) -> inspect.Signature:
    """Return the signature with every dataclass replaced by its options, panel by panel."""
    plain = [
        parameter.replace(annotation=hints[name], kind=inspect.Parameter.KEYWORD_ONLY)
        for name, parameter in inspect.signature(command).parameters.items()
        if name not in groups
    ]
    options = sorted(shown.values(), key=lambda each: _PANELS.get(each.option.panel, 1))
    hidden = [_parameter(each, hidden=True) for each in refused.values()]
    return inspect.Signature([*plain, *map(_parameter, options), *hidden])


def _parameter(each: Bound, *, hidden: bool = False) -> inspect.Parameter:
    """Describe one option to typer."""
    about, kind = each.option, each.kind
    repeated = typing.get_origin(each.plain_type) is tuple and about.kind is None
    repeated = repeated or (kind is not None and kind.repeats)
    typed: Any = each.plain_type if each.plain_type in (int, float, bool, Path) else str
    default = each.default
    if kind is not None:
        typed, default = (list[str] if repeated else str), None
    off = _switches_off(each)
    if off:
        default = False
    metavar = _metavar(each, typed)
    annotation: Any = typed if default is not None else typed | None
    return inspect.Parameter(
        each.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[
            annotation,
            typer.Option(
                *([f"--no-{each.flag[2:]}"] if off else each.flags),
                help=_help(each, metavar, off),
                metavar=metavar,
                show_default=each.option.shown is None
                and kind is None
                and not isinstance(each.default, bool)
                and each.default not in (None, ""),
                rich_help_panel=about.panel,
                hidden=hidden,
            ),
        ],
    )


def _switches_off(each: Bound) -> bool:
    """Whether the flag of an option switches off what is on by default: ``--no-baselines``."""
    return each.default is True


def _help(each: Bound, metavar: str | None, off: bool) -> str:
    """Return the help text with what is generated: allowed values, a default that is described."""
    text = each.help
    if off:
        text = f"Leave out {text[0].lower()}{text[1:]}"
    said = metavar == "|".join(each.names) or all(name in text for name in each.names)
    if not said:
        text += f" One of: {', '.join(each.names)}."
    default = each.option.shown
    if default is None and each.kind is not None and each.default:
        default = each.kind.write(each.default)
    return text if default is None else f"{text} Default: {default}."


def _metavar(each: Bound, typed: Any) -> str | None:
    about = each.option
    if about.metavar is not None or typed is bool:
        return about.metavar
    listed = "|".join(each.names)
    if listed and len(listed) <= _CHOICES_IN_METAVAR and each.kind is None:
        return listed
    return each.kind.metavar if each.kind is not None else None


def _parse(values: Mapping[str, Any], shown: Mapping[str, Bound]) -> dict[str, Any]:
    """Return what was given on the command line, every text turned into its value.

    Raises:
        ConfigError: naming every text that cannot be read.
    """
    parsed: dict[str, Any] = {}
    faults: list[str] = []
    for name, value in values.items():
        kind = shown[name].kind
        if kind is None:
            parsed[name] = not value if _switches_off(shown[name]) else value
        elif value is not None:
            text = ",".join(value) if isinstance(value, list) else value
            try:
                parsed[name] = kind.parse(text)
            except ValueError as error:
                detail = f" ({error})" if str(error) != text else ""
                faults.append(Fault(name, f"takes {kind.takes}, not '{text}'{detail}"))
    if faults:
        raise ConfigError(tuple(faults))
    return parsed


def _with_reporter(values: dict[str, Any], shown: Mapping[str, Bound]) -> dict[str, Any]:
    """Let the notes of the run name flags, too."""
    printing = next((each for each in values.values() if isinstance(each, Printing)), Printing())
    for name, value in values.items():
        if isinstance(value, RunOptions):
            told = TellingFlags(reporter(printing.quiet), shown)
            values[name] = dataclasses.replace(value, reporter=told)
    return values


class TellingFlags:
    """Passes everything on to another reporter, parameters in notes written as flags."""

    def __init__(self, reporter: Reporter, shown: Mapping[str, Bound]) -> None:
        self.task = reporter.task
        self._reporter, self._shown = reporter, shown

    def __reduce__(self) -> tuple[Any, ...]:
        # The table of options holds functions that cannot be pickled: in the process of another
        # device, notes name parameters.
        return _unchanged, (self._reporter,)

    def note(self, text: str) -> None:
        """Pass on one note."""
        self._reporter.note(as_flags(text, self._shown))


def _unchanged(reporter: Reporter) -> Reporter:
    return reporter


def in_flags(error: HeadstartError, shown: Mapping[str, Bound]) -> HeadstartError:
    """Return a copy of an error that names the flags of a command, not its parameters."""
    faults = error.faults if isinstance(error, ConfigError) else (error.message,)
    lines = [
        f"{shown[fault.name].flag} {as_flags(fault.text, shown)}"
        if isinstance(fault, Fault) and fault.name in shown
        else as_flags(fault, shown)
        for fault in faults
    ]
    told = copy.copy(error)
    told.message = "; ".join(lines)
    told.args = (told.message,)
    told.hint = None if error.hint is None else as_flags(error.hint, shown)
    return told


_ASSIGNMENT = re.compile(
    r"[A-Za-z_][\w.]*\([^()]*\)|"  # a call in Python is left alone
    r"(?<![\w.+'\"/=?&-])([a-z][a-z0-9_]*)=(\([^()]*\)|\{[^{}]*\}|'[^']*'|\"[^\"]*\"|"
    r"\.+(?=[\s,;()]|$)|[^\s,;()]+?(?=[.:!?]?(?:[\s,;()]|$)))"  # no full stop of a sentence
)


def as_flags(text: str, shown: Mapping[str, Bound]) -> str:
    """Write every ``name=value`` as the command line has it, where the command has that option.

    Others say what could have been given to ``fit``, which made the run.
    """

    def flag(found: re.Match[str]) -> str:
        name, value = found.groups()  # (None, None) for a call
        if name is None:
            return found[0]
        if name == "backbone" and "source" in shown:  # the field that --backbone sets
            name = "source"
        each = shown.get(name) or _of_fit().get(name)
        return found[0] if each is None else _flag(each, value)

    return _ASSIGNMENT.sub(flag, text)


@functools.cache
def _of_fit() -> dict[str, Bound]:
    """Return the options of ``fit`` alone, by name; commands import no more of each other."""
    options = importlib.import_module("headstart.commands.fit.options")
    return {each.name: each for each in options_of(options.FitConfig)}


def _flag(each: Bound, text: str) -> str:
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):  # FILE, N, …: a placeholder
        return f"{each.flag} {text}"
    words = each.write(value)
    return " ".join([words[0], *map(shlex.quote, words[1:])]) if words else f"no {each.flag}"


__all__ = [
    "Data",
    "Items",
    "Printing",
    "RunFolder",
    "RunOrData",
    "TellingFlags",
    "as_flags",
    "generated",
    "in_flags",
]
