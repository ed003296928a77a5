"""The options of ``fit``."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from headstart.commands.loggers import LogOptions
from headstart.commands.settings import Signature, head_wrong
from headstart.core.errors import ConfigError
from headstart.core.kinds import JSON_OBJECT, Kind
from headstart.core.settings import Fault, check, like, option
from headstart.core.toml import read_toml
from headstart.heads.registry import describe_heads, head_for


def _class_names(text: str) -> dict[str, Any]:
    if text.lstrip().startswith("{"):
        return dict(JSON_OBJECT.parse(text))
    try:
        return read_toml(Path(text).expanduser())
    except ValueError as error:
        raise ValueError(f"'{text}': {error}") from error


def _wrong_names(value: Any) -> str | None:
    if isinstance(value, Mapping) and all(
        isinstance(name, str) and names and all(isinstance(each, str) for each in _several(names))
        for name, names in value.items()
    ):
        return None
    return f"must give one name or a list of names for each class, not {value!r}"


def _several(names: Any) -> Sequence[Any]:
    return names if isinstance(names, list | tuple) else [names]


CLASS_NAMES = Kind("FILE|JSON", "a TOML file, or a JSON object", _class_names, json.dumps)


@dataclass(frozen=True)
class FitConfig:
    """The settings of :func:`headstart.fit`.

    Attributes:
        head: a kind of head in the registry (:func:`headstart.heads.head_kinds`). ``auto``, the
            default, takes what wins inside the training split among ``linear`` (multinomial
            logistic regression, its penalty chosen by cross-validation), ``ridge``, ``lda`` and
            ``prototype``; see :func:`headstart.heads.chooser.choose_head`.
        head_options: options of that kind, by name.
        folds: folds of the cross-validation, where the head uses one.
        class_weight: ``balanced`` weighs every class alike, however many items it has.
        threshold: where a probability becomes a prediction; see
            :func:`headstart.heads.thresholds.with_thresholds`.
        baselines: whether to compute figures to beat.
        start: ``classifier`` begins the head as the classifier that the backbone was pre-trained
            with (:func:`headstart.heads.started.fit_started`); the classes are found among
            ImageNet's by their names. ``text``: as texts about the classes, which a model with a
            tower for images and one for texts embeds; training is drawn towards either.
        class_names: by class which of ImageNet's it is, or which several, where its name does not
            say so: ``{"cat": ["tabby", "Persian cat"]}``, or the path of a TOML file of such lines.
            With ``start="text"``, what a class is called in the prompt.
        prompt: the text about a class, with ``{}`` in the place of its name.
        labels_per_class: train on so many items of each class alone, drawn with the seed; 0, with
            ``start="classifier"``, trains on none.
        loggers: see :class:`headstart.commands.loggers.LogOptions`.
        reduce: whether ``linear``, ``ridge`` and ``lda`` are fitted by sums over parts of the rows,
            in the processes of the runner; ``auto``: with a runner, where the features take more
            than 0.4 of the free memory. The head is that of one process up to its tolerance.
        abstain: whether the run keeps what ``predict`` needs for a coverage; see
            :func:`headstart.heads.abstaining.calibrated`.
        ood: how items are told that are unlike anything in the training split; see
            :mod:`headstart.heads.outliers`.
        ood_layers: layers whose features judge that, with the mean of their scores; none: the
            features of the head.
        false_alarms: the share of items like those of the training split that may be flagged.
    """

    head: str = option("auto", describe_heads, check=head_wrong)
    head_options: Mapping[str, Any] = option(
        {}, "Options of the head by name, such as '{\"standardise\": false}'."
    )
    folds: int = option(5, "Folds of the cross-validation inside the training split.", at_least=2)
    class_weight: Literal["balanced"] | None = option(
        None, "balanced: every class has the same weight, however many items it has."
    )
    threshold: Literal["auto", "half", "balanced", "f1"] = option(
        "auto",
        "Threshold above which a label is predicted. auto: highest F1 on held-out items (several"
        " labels); balanced: rare classes and labels count as much as frequent ones; half: 0.5.",
    )
    baselines: bool = option(True, "Baselines to compare with, on the same test items.")
    start: Literal["classifier", "text"] | None = option(
        None,
        "classifier: start from the backbone's own ImageNet classifier, with classes matched by"
        " name; text: start from embedded texts about the classes, with a backbone such as CLIP"
        " or SigLIP.",
        shown="from scratch",
    )
    class_names: Mapping[str, Any] = option(
        {},
        "Which ImageNet classes a class stands for, if its name does not say so: a TOML file"
        " with lines such as cat = ['tabby', 'Persian cat'], or JSON.",
        kind=CLASS_NAMES,
        check=_wrong_names,
    )
    prompt: str | None = option(
        None,
        "With --start text: the text for a class, where {} is its name.",
        shown="a photo of a {}",
        check=lambda text: (
            None if "{}" in text else "must contain {} where the name of a class goes"
        ),
    )
    labels_per_class: int | None = option(
        None,
        "Train on only this many items of each class; 0 with --start trains on none.",
        shown="all",
        at_least=0,
    )

    reduce: Literal["auto", "always", "never"] = option(
        "auto",
        "Fit linear, ridge and lda from sums over parts of the rows, in the processes of"
        " --runner. auto: with a runner, if the features take more than 0.4 of the free memory.",
    )
    loggers: tuple[str, ...] = like(LogOptions, "loggers")
    abstain: Literal["auto", "always", "never"] = option(
        "auto",
        "Keep what predict --coverage needs: scores of held-out training items. auto: unless"
        " that takes long training; always: train the folds of any head; never.",
    )
    ood: Literal["knn", "mahalanobis"] | None = option(
        None,
        "Flag test items, and later ones, that are unlike anything in the training split. knn:"
        " by the nearest training items; mahalanobis: by the nearest class mean.",
        shown="none are flagged",
    )
    ood_layers: tuple[str, ...] = option(
        (),
        "With --ood: layers whose features are compared, such as stage2,stage4.",
        metavar="LAYER,LAYER",
        shown="the head's own",
    )
    false_alarms: float = option(
        0.05, "With --ood: the share of ordinary items that may be flagged.", above=0, below=1
    )

    def __post_init__(self) -> None:
        if isinstance(self.class_names, str | Path):
            try:
                object.__setattr__(self, "class_names", _class_names(str(self.class_names)))
            except ValueError as error:
                raise ConfigError((Fault("class_names", f"cannot be read: {error}"),)) from error
        check(self)

    def faults(self) -> list[str]:
        """Look at the options of the head, and at what belongs together."""
        if self.ood is None and self.ood_layers:
            return [Fault("ood_layers", "requires ood")]
        if self.ood is None and self.false_alarms != type(self).false_alarms:
            return [Fault("false_alarms", "requires ood")]
        if len(set(self.ood_layers)) < len(self.ood_layers):
            return [Fault("ood_layers", "names a layer twice")]
        if self.start is not None and (self.head != "auto" or self.head_options):
            return [
                Fault("start", "has a head of its own, and takes neither head nor head_options")
            ]
        if self.start is not None and self.reduce == "always":
            what = "must not be 'always' with start, which has a head of its own"
            return [Fault("reduce", what)]
        if self.start is not None and (self.class_weight or self.threshold != "auto"):
            return [Fault("start", "takes neither class_weight nor threshold")]
        if self.prompt is not None and self.start != "text":
            return [Fault("prompt", "requires start='text'")]
        if self.labels_per_class == 0 and self.start is None:
            return [Fault("labels_per_class", "must be at least 1 unless start is given")]
        try:
            kind = head_for(self.head, self.head_options)
        except ConfigError as error:
            return list(error.faults)
        if self.reduce == "always" and kind.reduce is None:
            what = (
                f"must not be 'always' with the head '{kind.name}': linear, ridge and lda allow it"
            )
            return [Fault("reduce", what)]
        if self.class_weight is not None and "class_weight" in self.head_options:
            return [Fault("class_weight", "is given twice, as a setting and in head_options")]
        if self.class_weight is not None and "class_weight" not in kind.option_names:
            what = f"does not apply to the head '{kind.name}'; threshold='balanced' works with any"
            return [Fault("class_weight", what)]
        try:
            kind.settings(self.options(), folds=self.folds)
        except ConfigError as error:
            return list(error.faults)
        return []

    def options(self) -> dict[str, Any]:
        """Return the options of the head, with the class weights."""
        if self.class_weight is None:
            return dict(self.head_options)
        return {**self.head_options, "class_weight": self.class_weight}


FIT = Signature("fit", FitConfig(), calibrates=True)


__all__ = ["FIT", "FitConfig"]
