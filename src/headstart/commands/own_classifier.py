"""The classifier that a backbone brings along, for one's own classes: a baseline, and a start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headstart.backbones import Backbone
from headstart.backbones.classifier import IMAGENET, Classifier, Match, classifier_of, match_classes
from headstart.core.errors import BackboneError, ConfigError, DataError
from headstart.core.records import Baseline, from_plain, to_plain
from headstart.core.wording import clean, count, quoted
from headstart.data import Split
from headstart.evaluation import evaluate
from headstart.heads.started import StartedHead
from headstart.store import FeatureSet, Result, Store, result_key

ZERO_LABEL = "zero-label"
"""The name of the baseline."""
_PACKED = {"version": 1}


def head_without_labels(
    backbone: Backbone, classes: Sequence[str], named: Mapping[str, Any]
) -> tuple[StartedHead, str]:
    """Return the head that is the backbone's own classifier, and which classes it takes for ours.

    Args:
        backbone: at the input of its classifier.
        classes: one's own.
        named: by own class which of the classifier's it is, where its name does not say so.

    Raises:
        DataError: there is one class only.
        ConfigError: the backbone brings no classifier, or classes are not among its own; all
            faults are named.
    """
    if len(classes) < 2:
        raise DataError(
            f"the data hold only one class ({quoted(classes)})",
            hint="a classifier needs items of two classes or more",
        )
    load = classifier_of(backbone)
    found = None if load is None else load()
    if found is None:
        cut = "" if backbone.layer is None else f" up to {backbone.layer}"
        raise ConfigError(
            (f"{backbone.name}{cut} has no {IMAGENET} classifier for these features",),
            hint="headstart/photos has one, and so do most timm networks with their own weights"
            if backbone.layer is None
            else "the classifier takes the network's final features: omit the layer",
        )
    match = match_classes(classes, named)
    if match.faults:
        raise ConfigError(
            match.faults,
            hint="class_names='FILE.toml' says which they are, in lines such as"
            " cat = ['tabby', 'Persian cat']",
        )
    return _head(found, classes, match), f"{backbone.name}'s own classifier of {IMAGENET}: {match}"


def _head(found: Classifier, classes: Sequence[str], match: Match) -> StartedHead:
    members = [match.members[name] for name in classes]
    return StartedHead.untrained(found.weight, found.bias, members)


def zero_label_baseline(
    store: Store,
    backbone: Backbone,
    fingerprints: Mapping[str, str],
    test: Split,
    rows: FeatureSet,
    named: Mapping[str, Any],
) -> tuple[tuple[Baseline, ...], tuple[str, ...]]:
    """Return the accuracy of the backbone's own classifier on test items, where it can be had.

    Args:
        store: where it is kept.
        backbone: at the input of its classifier.
        fingerprints: of the backbone and of the test split.
        test: with the classes.
        rows: features of the test items.
        named: as for :func:`head_without_labels`.

    Returns:
        The baseline, or none; and a note where some classes were found and others not.
    """
    key = {
        **_PACKED,
        "backbone": fingerprints["backbone"],
        "test": fingerprints["test"],
        "named": {name: named[name] for name in sorted(named)},
    }

    def compute() -> tuple[tuple[Baseline, ...], tuple[str, ...]]:
        return _measured(backbone, test, rows, named)

    kept = store.results("zero-label")
    return kept.once(result_key(to_plain(key)), compute, _pack, _unpack)[0]


def _measured(
    backbone: Backbone, test: Split, rows: FeatureSet, named: Mapping[str, Any]
) -> tuple[tuple[Baseline, ...], tuple[str, ...]]:
    load = classifier_of(backbone)
    if load is None:
        return (), ()
    match = match_classes(test.classes, named)
    if match.faults:
        return (), _partly(match, test.classes)
    try:
        found = load()
    except BackboneError as error:
        return (), (f"no zero-label baseline: {error}",)
    if found is None:
        return (), ()
    likely = _head(found, test.classes, match).likelihoods(rows)
    scored = evaluate(test.labels, likely, test.classes, groups=test.groups)
    about = f"{backbone.name}'s own classifier of {IMAGENET}, without a label: {match}"
    return (Baseline(ZERO_LABEL, about, scored.accuracy),), ()


def _partly(match: Match, classes: Sequence[str]) -> tuple[str, ...]:
    """Say why there is no baseline where half of the classes or more were found."""
    if 2 * len(match.members) < len(classes):
        return ()
    more = len(match.faults) - 1
    others = f" (and {count(more, 'class', 'classes')} more)" if more else ""
    return (
        f"no zero-label baseline: {clean(match.faults[0])}{others};"
        " class_names='FILE.toml' says which they are",
    )


def _pack(made: tuple[tuple[Baseline, ...], tuple[str, ...]]) -> Result:
    baselines, notes = made
    return Result(values={"baselines": to_plain(baselines), "notes": list(notes)})


def _unpack(found: Result) -> tuple[tuple[Baseline, ...], tuple[str, ...]]:
    values = found.values
    baselines = tuple(from_plain(Baseline, each) for each in values["baselines"])
    return baselines, tuple(map(str, values["notes"]))


__all__ = ["ZERO_LABEL", "head_without_labels", "zero_label_baseline"]
