"""Recipes in TOML: read without trusting a word, all faults reported together.

A file has the fields of :class:`~headstart.finetuning.recipe.Recipe` at the top and one
``[[stage]]`` table a stage, with the fields of :class:`~headstart.finetuning.recipe.Stage`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, get_origin

from headstart.core.errors import ConfigError
from headstart.core.settings import options_of
from headstart.core.toml import read_toml
from headstart.core.wording import nearest, quoted
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
        values = read_toml(path)
    except ValueError as error:
        raise ConfigError((f"the recipe '{path}' cannot be read: {error}",)) from error
    return recipe_from(values, default_name=path.stem)


def recipe_from(values: Mapping[str, Any], default_name: str = "recipe") -> Recipe:
    """Build a recipe from the tables of a file.

    Args:
        values: what :func:`read_toml` returns.
        default_name: the recipe's name, where the file has none.

    Raises:
        ConfigError: unknown fields (with the nearest names) and whatever :meth:`Recipe.faults`
            finds, all together.
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
    given = _fields(Recipe, top, "the recipe", faults)
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


def _fields(kind: type, table: Mapping[str, Any], where: str, faults: list[str]) -> dict[str, Any]:
    """Return the known fields of a table as Python has them; complain about the others."""
    known = {each.name: each.plain_type for each in options_of(kind)}
    found: dict[str, Any] = {}
    for key, value in table.items():
        if key in known:
            found[key] = _in_python(value, known[key])
        else:
            close = quoted(nearest(key, known) or tuple(known))
            faults.append(f"{where}: there is no field '{key}' (the nearest are {close})")
    return found


def _in_python(value: Any, kind: Any) -> Any:
    """Return a value of TOML in the type of a field, where TOML has another for the same thing."""
    if get_origin(kind) is tuple:
        return tuple(value) if isinstance(value, list) else (value,)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if isinstance(value, Mapping):
        return {str(key): _in_python(item, float) for key, item in value.items()}
    return value


__all__ = ["load_recipe", "read_recipe", "recipe_from", "recipe_to_plain"]
