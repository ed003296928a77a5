"""Fine-tuning: recipes of stages, the plan, the one training loop, and the cached prefix."""

from __future__ import annotations

from headstart.finetuning.borrowed import StoredRows, Suffix, freeze_and_cache
from headstart.finetuning.network import Classifier
from headstart.finetuning.presets import PRESETS
from headstart.finetuning.recipe_file import load_recipe, recipe_from, recipe_to_plain
from headstart.finetuning.stages import Recipe, Stage

__all__ = [
    "PRESETS",
    "Classifier",
    "Recipe",
    "Stage",
    "StoredRows",
    "Suffix",
    "freeze_and_cache",
    "load_recipe",
    "recipe_from",
    "recipe_to_plain",
]
