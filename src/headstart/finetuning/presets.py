"""The recipes with a name.

Rates are starting points for AdamW on pre-trained image networks with batches of 32; they are
printed with every plan.
"""

from __future__ import annotations

from headstart.core.errors import ConfigError
from headstart.core.wording import nearest, quoted
from headstart.finetuning.stages import Optimizer, Recipe, Stage


def _thread(name: str, optimizer: Optimizer, train: str) -> Recipe:
    """SGD or Adam at 1e-3, a tenth of it every 7 epochs, batches of 100, as in the tutorials.

    Batch norm normalises by the mini-batch in the parts that train, since that is what those
    tutorials do; the frozen part is frozen in earnest.
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


PRESETS: dict[str, tuple[str, Recipe]] = {
    recipe.name: (summary, recipe)
    for summary, recipe in (
        (
            "the head alone, by gradient descent on frozen features",
            Recipe(
                "linear-probe",
                (Stage("head", ("head",), epochs=30, patience=8, lr=1e-2, weight_decay=1e-4),),
            ),
        ),
        (
            "head by logistic regression first, then everything at a small rate (LP-FT)",
            Recipe("lp-ft", (Stage("all", ("all",), epochs=10, lr=1e-4, warmup=0.5),), "probe"),
        ),
        (
            "head first, then the last block too",
            Recipe("last-block", (Stage("last block", ("last:1",), lr=1e-4),), "probe"),
        ),
        (
            "head first, then one block more a stage until a stage brings nothing",
            Recipe(
                "gradual",
                (Stage("thaw", ("gradual",), epochs=5, patience=2, lr=1e-4, decay=0.75),),
                "probe",
                stop_without_gain=True,
            ),
        ),
        (
            "everything at once from a random head",
            Recipe("full", (Stage("all", ("all",), epochs=10, lr=1e-4, warmup=0.5),)),
        ),
        (
            "everything at once, with smaller rates nearer the input",
            Recipe(
                "layer-decay",
                (Stage("all", ("all",), epochs=10, lr=1e-3, decay=0.65, warmup=0.5),),
            ),
        ),
        (
            "head first, then only scales and shifts of the norms with it",
            Recipe("bn-affine", (Stage("norms", ("norms", "head"), lr=1e-3),), "probe"),
        ),
        (
            "head first, then the one block whose gradient asks for it (surgical fine-tuning)",
            Recipe("surgical", (Stage("surgical", ("surgical", "head"), lr=1e-4),), "probe"),
        ),
        ("fine-tuning with SGD and StepLR", _thread("sgd-step", "sgd", "all")),
        ("fine-tuning with Adam and StepLR", _thread("adam-step", "adam", "all")),
        ("feature extraction with SGD and StepLR", _thread("sgd-step-head", "sgd", "head")),
        ("feature extraction with Adam and StepLR", _thread("adam-step-head", "adam", "head")),
    )
}
"""Name → (what it does, the recipe)."""


def preset(name: str) -> Recipe:
    """Return a recipe by its name.

    Raises:
        ConfigError: there is none; the nearest names are offered.
    """
    if name in PRESETS:
        return PRESETS[name][1]
    close = nearest(name, PRESETS) or tuple(PRESETS)
    raise ConfigError(
        (f"there is no recipe named '{name}'",),
        hint=f"recipes are {quoted(close)}, or a file that ends in .toml",
    )


__all__ = ["PRESETS", "preset"]
