"""Recipes in TOML: read without trusting a word, all faults reported together.

A file has the fields of :class:`~headstart.finetuning.recipe.Recipe` at the top and one
``[[stage]]`` table a stage, with the fields of :class:`~headstart.finetuning.recipe.Stage`.
"""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_type_hints

from headstart.core.errors import ConfigError
from headstart.core.wording import nearest
from headstart.finetuning.presets import preset
from headstart.finetuning.recipe import Recipe, Stage


def load_recipe(source: str | Path | Recipe) -> Recipe:
    """Return a recipe from itself, from the name of a preset, or from a ``.toml`` file.

    Raises:
        ConfigError: no such preset or file, or faults in it, all together.
    """
    if isinstance(source, Recipe):
        return source.check()
    if isinstance(source, Path) or source.endswith(".toml"):
        return read_recipe(Path(source).expanduser())
    return preset(source)


def read_recipe(path: Path) -> Recipe:
    """Read a recipe from a TOML file.

    Raises:
        ConfigError: the file cannot be read, is not TOML, or holds faults, all of them listed.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is not UTF-8 text"
        raise ConfigError((f"the recipe '{path}' cannot be read: {reason}",)) from error
    try:
        values = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError((f"the recipe '{path}' is not TOML: {error}",)) from error
    return recipe_from(values, default_name=path.stem)


def recipe_from(values: Mapping[str, Any], default_name: str = "recipe") -> Recipe:
    """Build a recipe from the tables of a file.

    Args:
        values: what ``tomllib`` returns.
        default_name: the recipe's name, where the file gives none.

    Raises:
        ConfigError: unknown fields (with the nearest names), values of another type, and whatever
            :meth:`Recipe.faults` finds, all together.
    """
    faults: list[str] = []
    tables = values.get("stage", [])
    if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
        faults.append("stage must be a list of tables: write [[stage]] above each")
        tables = []
    stages = []
    for number, table in enumerate(tables, start=1):
        where = f"stage '{table.get('name', number)}'"
        given = _fields(Stage, table, where, faults)
        stages.append(Stage(**{"name": f"stage {number}", **given}))
    top = {key: value for key, value in values.items() if key != "stage"}
    given = _fields(Recipe, top, "the recipe", faults, hidden=("stages",))
    recipe = Recipe(**{"name": default_name, **given, "stages": tuple(stages)})
    faults += recipe.faults()
    if faults:
        raise ConfigError(tuple(dict.fromkeys(faults)))
    return recipe


def recipe_to_plain(recipe: Recipe) -> dict[str, Any]:
    """Return what ``recipe_from`` reads: tables of plain values; what is None is left out."""
    plain = dataclasses.asdict(recipe)
    stages = [
        {key: value for key, value in stage.items() if value is not None}
        | {"train": list(stage["train"])}
        for stage in plain.pop("stages")
    ]
    return {**plain, "stage": stages}


def _fields(
    kind: type,
    table: Mapping[str, Any],
    where: str,
    faults: list[str],
    hidden: tuple[str, ...] = (),
) -> dict[str, Any]:
    """Return the sound fields of a table; complain about the others."""
    hints = {name: hint for name, hint in get_type_hints(kind).items() if name not in hidden}
    sound: dict[str, Any] = {}
    for key, value in table.items():
        if key not in hints:
            close = nearest(key, hints) or tuple(hints)
            offer = ", ".join(f"'{name}'" for name in close)
            faults.append(f"{where}: there is no field '{key}' (the nearest are {offer})")
            continue
        fitted = _fit(value, str(hints[key]))
        if fitted is None:
            faults.append(f"{where}: {key} is {value!r}, expected {_wording(str(hints[key]))}")
        else:
            sound[key] = fitted
    return sound


def _fit(value: Any, hint: str) -> Any:
    """Return the value in the type of the field, or None if it has another one."""
    if "tuple" in hint:
        listed = [value] if isinstance(value, str) else value
        ok = isinstance(listed, list | tuple) and all(isinstance(item, str) for item in listed)
        return tuple(listed) if ok else None
    if "Mapping" in hint:
        ok = isinstance(value, Mapping) and all(_is_number(item) for item in value.values())
        return {str(key): float(item) for key, item in value.items()} if ok else None
    if "bool" in hint:
        return value if isinstance(value, bool) else None
    if "float" in hint and "Literal" not in hint:
        return float(value) if _is_number(value) else None
    if "int" in hint and "Literal" not in hint:
        return value if isinstance(value, int) and not isinstance(value, bool) else None
    return value if isinstance(value, str) else None


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _wording(hint: str) -> str:
    for mark, words in (
        ("tuple", "a list of names"),
        ("Mapping", "a table from group names to rates"),
        ("bool", "true or false"),
        ("Literal", "a word in quotes"),
        ("float", "a number"),
        ("int", "a whole number"),
    ):
        if mark in hint:
            return words
    return "text in quotes"


__all__ = ["load_recipe", "read_recipe", "recipe_from", "recipe_to_plain"]
