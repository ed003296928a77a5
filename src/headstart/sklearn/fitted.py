"""A run that is trained already as an estimator of scikit-learn's conventions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headstart.backbones import Backbone
from headstart.core.records import Precision
from headstart.data.levels import ValueRange
from headstart.heads import Head, LinearHead
from headstart.heads.prepared import PreparedHead
from headstart.sklearn.extractor import FeatureExtractor
from headstart.sklearn.heads import HeadClassifier, HeadRegressor
from headstart.sklearn.several_labels import HeadMultiLabelClassifier
from headstart.sklearn.transfer import (
    TransferClassifier,
    TransferMultiLabelClassifier,
    TransferRegressor,
)

_NAMES = {"logistic": "linear", "neighbours": "knn", "started": "linear"}
"""Kinds of trained heads that are trained under another name."""
_ESTIMATORS: dict[str, tuple[Any, Any]] = {
    "classification": (TransferClassifier, HeadClassifier),
    "multi-label": (TransferMultiLabelClassifier, HeadMultiLabelClassifier),
    "regression": (TransferRegressor, HeadRegressor),
}


def fitted_estimator(
    backbone: Backbone,
    head: Head,
    classes: Sequence[str],
    *,
    precision: Precision = "float32",
    value_range: ValueRange | None = None,
) -> Any:
    """Return an estimator that predicts with a backbone and a head as they are.

    Args:
        backbone: cut as the head was trained on.
        head: of any task.
        classes: names of the outputs, in their order.
        precision, value_range: as for :class:`FeatureExtractor`.
    """
    inner = head.inner if isinstance(head, PreparedHead) else head
    method = inner.method if isinstance(inner, LinearHead) else inner.kind
    name = _NAMES.get(method, method)
    whole, last = _ESTIMATORS[head.task]
    shared: dict[str, Any] = {
        "backbone": backbone,
        "precision": precision,
        "value_range": value_range,
    }
    model = last(name)
    model.head_, model.chosen_, model.curves_, model.notes_ = head, {}, (), ()
    model.n_features_in_ = head.n_features
    made = whole(head=name, **shared)
    made.model_, made.columns_ = model, ()
    made.extractor_ = FeatureExtractor(**shared)
    made.extractor_.backbone_ = backbone
    if head.task == "regression":
        model._flat = head.n_classes == 1
        return made
    named = np.array(list(classes), dtype=object)
    if head.task == "multi-label":
        model.several_labels_, named = True, np.arange(head.n_classes)
    else:
        model._shift = 0.0 if head.thresholds is None else -np.log(head.thresholds)
    model.classes_ = made.classes_ = named
    return made


__all__ = ["fitted_estimator"]
