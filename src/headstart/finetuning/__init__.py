"""Fine-tuning, as a pipeline: recipe, targets, costs, plan, feeds, loop, outcome.

:mod:`.recipe`
    What trains in which order, as plain values; :mod:`.presets` names some, :mod:`.recipe_file`
    reads TOML, :mod:`.optimizers` lists optimizers and rate schedules.
:mod:`.targets`
    The stages of a recipe, resolved in a network (:mod:`.network`).
:mod:`.costs`
    The cost model: what a stage costs from images and from stored rows, and which it trains on;
    :mod:`.timing` measures.
:mod:`.plan`, :mod:`.planner`
    The plan as a record, and what makes it.
:mod:`.feeds`, :mod:`.rows`
    How items reach the network: as images, or as stored rows of its frozen part.
:mod:`.loop`
    The one training loop, with :mod:`.epoch`, :mod:`.state`, :mod:`.rng`, :mod:`.checkpoint` and
    :mod:`.devices`.
:mod:`.outcome`
    What a training leaves behind.

:func:`freeze_and_cache` gives a loop of the user's own the same stored rows.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.core.lazy import contents

if TYPE_CHECKING:
    from headstart.finetuning.network import Classifier as Classifier
    from headstart.finetuning.optimizers import OptimizerKind as OptimizerKind
    from headstart.finetuning.optimizers import Schedule as Schedule
    from headstart.finetuning.optimizers import register_optimizer as register_optimizer
    from headstart.finetuning.optimizers import register_schedule as register_schedule
    from headstart.finetuning.presets import PRESETS as PRESETS
    from headstart.finetuning.presets import register_recipe as register_recipe
    from headstart.finetuning.recipe import Recipe as Recipe
    from headstart.finetuning.recipe import Stage as Stage
    from headstart.finetuning.recipe_file import load_recipe as load_recipe
    from headstart.finetuning.recipe_file import recipe_from as recipe_from
    from headstart.finetuning.recipe_file import recipe_to_plain as recipe_to_plain
    from headstart.finetuning.user_loop import StoredRows as StoredRows
    from headstart.finetuning.user_loop import Suffix as Suffix
    from headstart.finetuning.user_loop import freeze_and_cache as freeze_and_cache

__getattr__, __dir__, __all__ = contents(
    __name__,
    {
        "user_loop": ("StoredRows", "Suffix", "freeze_and_cache"),
        "network": ("Classifier",),
        "optimizers": ("OptimizerKind", "Schedule", "register_optimizer", "register_schedule"),
        "presets": ("PRESETS", "register_recipe"),
        "recipe": ("Recipe", "Stage"),
        "recipe_file": ("load_recipe", "recipe_from", "recipe_to_plain"),
    },
)
