"""Fine-tuning for ``compare``: the job of ``headstart finetune``, on the items of a repetition."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from headstart.backbones import Backbone
from headstart.cache import FeatureCache
from headstart.commands.finetune.options import FinetuneConfig
from headstart.commands.run import Run
from headstart.commands.settings import RunOptions
from headstart.core.progress import Reporter, SilentReporter
from headstart.data import Dataset, Split
from headstart.extraction import Extraction
from headstart.finetuning import Classifier, load_recipe, recipe_from, recipe_to_plain
from headstart.finetuning.targets import resolve
from headstart.study import Fitted, Tuning


@dataclasses.dataclass(frozen=True)
class FineTuner:
    """Trains the backbones of a study; a :class:`~headstart.study.Tuner`.

    Attributes:
        extraction: batch size, device and threads of forward passes outside training.
    """

    extraction: Extraction

    def plan(self, backbone: Backbone, recipe: str, n_classes: int, epochs: int | None) -> Tuning:
        """Find a recipe, and whether it fits; see :class:`~headstart.study.Tuner`."""
        chosen = load_recipe(recipe).with_changes(epochs=epochs).check()
        targets = resolve(Classifier(backbone, n_classes), chosen)
        count = sum(target.stage.epochs for target in targets)
        return Tuning(chosen.name, recipe_to_plain(chosen), count)

    def run(
        self,
        backbone: Backbone,
        tuning: Tuning,
        dataset: Dataset,
        *,
        seed: int,
        folder: Path,
        reporter: Reporter,
    ) -> Fitted:
        """Train in place and predict; see :class:`~headstart.study.Tuner`.

        Everything is computed in every epoch: whether stored rows pay is decided by measured
        times, and a study repeats to the last digit. The cache lies in the folder of the run,
        since rows behind a network that is thrown away are of no use to anyone else.
        """
        from headstart.commands.finetune.job import finetune

        extraction = dataclasses.replace(self.extraction, precision="float32")
        shared = {**vars(extraction), "precision": "auto"}  # a recipe has its own
        cache = FeatureCache(folder / "cache")
        run = finetune(
            dataset,
            backbone,
            recipe_from(tuning.recipe),
            config=FinetuneConfig(stored="off", baselines=False),
            run=RunOptions(**shared, seed=seed, out=folder / "run", cache=cache, reporter=reporter),
        )

        def predict(split: Split) -> NDArray[np.int64]:
            found = cache.features(
                run.backbone, split, settings=extraction, reporter=SilentReporter()
            )
            return run.head.predict(found.rows)

        return Fitted(
            validation=predict(dataset.splits["validation"]),
            test=predict(dataset.test),
            chosen=_chosen(run),
            curves=run.curves,
            seconds=_seconds(run),
        )


def _chosen(run: Run) -> dict[str, float]:
    """Return the epoch that was kept, counted over all stages, 0 for the start."""
    records = run.training["epochs"]
    best = records.index(run.training["best"])
    return {"best_epoch": float(best), "epochs": float(len(records) - 1)}


def _seconds(run: Run) -> float:
    """Return the time of training, before and after an interruption, with that of a probe."""
    stages = sum(float(stage["seconds"]) for stage in run.training["stages"])
    return stages + float(run.seconds.get("start", 0.0))


__all__ = ["FineTuner"]
