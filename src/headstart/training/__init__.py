"""Fine-tuning: recipes of stages, the plan, the one training loop, and the cached prefix."""

from __future__ import annotations

from headstart.training.borrowed import StoredRows, Suffix, freeze_and_cache
from headstart.training.network import Classifier
from headstart.training.presets import PRESETS
from headstart.training.recipe_file import load_recipe, recipe_from, recipe_to_plain
from headstart.training.stages import Recipe, Stage

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
