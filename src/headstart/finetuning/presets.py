"""Recipes by name: an open table, and the recipes that come with headstart.

Rates are starting points for AdamW on pre-trained image networks with batches of 32; every plan
prints them.
"""

from __future__ import annotations

from typing import NamedTuple

from headstart.core.errors import ConfigError
from headstart.core.wording import nearest, quoted
from headstart.finetuning.recipe import Recipe, Stage


class Preset(NamedTuple):
    """A recipe with a name.

    Attributes:
        summary: what it does, in a few words.
        recipe: the recipe.
    """

    summary: str
    recipe: Recipe


PRESETS: dict[str, Preset] = {}
"""The recipes that can be named, by name."""


def register_recipe(recipe: Recipe, summary: str) -> None:
    """Make a recipe available under its name; a known name is replaced.

    Args:
        recipe: the recipe.
        summary: what it does, in a few words, for the documentation.

    Raises:
        ConfigError: the recipe has faults.
    """
    PRESETS[recipe.name] = Preset(summary, recipe.check())


def preset(name: str) -> Recipe:
    """Return a recipe by its name.

    Raises:
        ConfigError: there is none; the nearest names are offered.
    """
    if name in PRESETS:
        return PRESETS[name].recipe
    close = nearest(name, PRESETS) or tuple(PRESETS)
    raise ConfigError(
        (f"there is no recipe named '{name}'",),
        hint=f"recipes are {quoted(close)}, or a file that ends in .toml",
    )


def _tutorial(name: str, optimizer: str, train: str) -> Recipe:
    """SGD or Adam at 1e-3, a tenth of it every 7 epochs, batches of 100, as in the tutorials.

    As in those tutorials, batch norm normalises by the mini-batch in the parts that train. The
    frozen part is properly frozen.
    """
    stage = Stage(
        name="head" if train == "head" else "all",
        train=(train,),
        epochs=10,
        lr=1e-3,
        optimizer=optimizer,
        weight_decay=0.0,
        schedule="step",
        batch_size=100,
        norm="batch",
    )
    return Recipe(name, (stage,))


register_recipe(
    Recipe(
        "linear-probe",
        (Stage("head", ("head",), epochs=30, patience=8, lr=1e-2, weight_decay=1e-4),),
    ),
    "only the head, by gradient descent on frozen features",
)
register_recipe(
    Recipe("lp-ft", (Stage("all", ("all",), epochs=10, lr=1e-4, warmup=0.5),), "probe"),
    "head by logistic regression first, then everything at a small rate (LP-FT)",
)
register_recipe(
    Recipe("last-block", (Stage("last block", ("last:1",), lr=1e-4),), "probe"),
    "head first, then the last block too",
)
register_recipe(
    Recipe(
        "gradual",
        (Stage("thaw", ("gradual",), epochs=5, patience=2, lr=1e-4, decay=0.75),),
        "probe",
        stop_without_gain=True,
    ),
    "head first, then one more block per stage until a stage brings no gain",
)
register_recipe(
    Recipe("full", (Stage("all", ("all",), epochs=10, lr=1e-4, warmup=0.5),)),
    "everything at once from a random head",
)
register_recipe(
    Recipe("layer-decay", (Stage("all", ("all",), epochs=10, lr=1e-3, decay=0.65, warmup=0.5),)),
    "everything at once, with smaller rates nearer the input",
)
register_recipe(
    Recipe("bn-affine", (Stage("norms", ("norms", "head"), lr=1e-3),), "probe"),
    "head first, then only the scales and shifts of the norms with it",
)
register_recipe(
    Recipe("surgical", (Stage("surgical", ("surgical", "head"), lr=1e-4),), "probe"),
    "head first, then the one block with the largest relative gradient (surgical fine-tuning)",
)
register_recipe(_tutorial("sgd-step", "sgd", "all"), "fine-tuning with SGD and StepLR")
register_recipe(_tutorial("adam-step", "adam", "all"), "fine-tuning with Adam and StepLR")
register_recipe(_tutorial("sgd-step-head", "sgd", "head"), "feature extraction with SGD and StepLR")
register_recipe(
    _tutorial("adam-step-head", "adam", "head"), "feature extraction with Adam and StepLR"
)


__all__ = ["PRESETS", "Preset", "preset", "register_recipe"]
