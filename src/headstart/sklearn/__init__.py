"""scikit-learn estimators: frozen features and the heads on them, in scikit-learn's own words.

:class:`FeatureExtractor` turns images into features; :class:`HeadClassifier`,
:class:`HeadMultiLabelClassifier` and :class:`HeadRegressor` learn from features;
:class:`TransferClassifier`, :class:`TransferMultiLabelClassifier` and :class:`TransferRegressor` do
both. They clone, pickle and validate as scikit-learn's checks demand, and work in its pipelines and
searches.
"""

from __future__ import annotations

from headstart.sklearn.extractor import FeatureExtractor
from headstart.sklearn.faults import InputError, SettingsError
from headstart.sklearn.heads import HeadClassifier, HeadRegressor
from headstart.sklearn.several_labels import HeadMultiLabelClassifier
from headstart.sklearn.transfer import (
    TransferClassifier,
    TransferMultiLabelClassifier,
    TransferRegressor,
)

__all__ = [
    "FeatureExtractor",
    "HeadClassifier",
    "HeadMultiLabelClassifier",
    "HeadRegressor",
    "InputError",
    "SettingsError",
    "TransferClassifier",
    "TransferMultiLabelClassifier",
    "TransferRegressor",
]
