"""``TransferClassifier``: images or texts → features of a frozen backbone → a head, in one."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted
from torch import nn

from headstart.backbones import Backbone, Pooling
from headstart.extraction import Precision
from headstart.sklearn.extractor import FeatureExtractor, extractor_faults, image_tags
from headstart.sklearn.faults import raise_faults
from headstart.sklearn.heads import (
    ClassWeight,
    HeadClassifier,
    encode_classes,
    head_faults,
    parameters_of,
    refuse_several_labels,
)

_EXTRACTOR = parameters_of(FeatureExtractor)
_HEAD = parameters_of(HeadClassifier)


class TransferClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify images or texts by a head on features of a frozen, pre-trained network.

    It is :class:`FeatureExtractor` and :class:`HeadClassifier` in one, with the parameters of
    both, so that one search covers layers and penalties. The network runs once an item and
    layer: every fold and every other parameter finds the features in the cache.

    Args:
        backbone, layer, pooling, backbone_args, image_shape, value_range, image_column,
            text_column, cache, batch_size, precision, device, workers, verbose: as for
            :class:`FeatureExtractor`.
        head, head_options, class_weight, random_state: as for :class:`HeadClassifier`.

    Attributes:
        classes_: ``(k,)``, sorted.
        extractor_: the :class:`FeatureExtractor`.
        classifier_: the trained :class:`HeadClassifier`, with what it chose and why.
        n_features_in_, feature_names_in_: as for :class:`FeatureExtractor`.
    """

    def __init__(
        self,
        backbone: str | Backbone | nn.Module = "auto",
        *,
        layer: str | None = None,
        pooling: Pooling | None = None,
        head: str = "auto",
        head_options: Mapping[str, Any] | None = None,
        class_weight: ClassWeight = None,
        random_state: int | np.random.RandomState | None = 0,
        backbone_args: Mapping[str, Any] | None = None,
        image_shape: Literal["square"] | tuple[int, ...] | None = None,
        value_range: tuple[float, float] | None = None,
        image_column: str | None = None,
        text_column: str | None = None,
        cache: str | os.PathLike[str] | Literal[False] | None = None,
        batch_size: int = 64,
        precision: Precision = "float32",
        device: str = "auto",
        workers: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.layer = layer
        self.pooling = pooling
        self.head = head
        self.head_options = head_options
        self.class_weight = class_weight
        self.random_state = random_state
        self.backbone_args = backbone_args
        self.image_shape = image_shape
        self.value_range = value_range
        self.image_column = image_column
        self.text_column = text_column
        self.cache = cache
        self.batch_size = batch_size
        self.precision = precision
        self.device = device
        self.workers = workers
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Extract the features that are not in the cache, and train the head.

        Args:
            X: images or texts; see :meth:`FeatureExtractor.transform`.
            y: ``(n,)`` classes, numbers or text; two or more of them.
            sample_weight, groups: as for :meth:`HeadClassifier.fit`.

        Raises:
            SettingsError: parameters are invalid; all are named.
            InputError, ValueError: X or y is invalid.
            BadFilesError: images cannot be read; all are named, and the others are kept.
        """
        given = self.get_params(deep=False)
        faults = extractor_faults(given)
        faults += head_faults(given, "classification")
        raise_faults(self, faults)
        refuse_several_labels(y, type(self).__name__)
        extractor = FeatureExtractor(**{name: given[name] for name in _EXTRACTOR}).fit(X)
        # Faults of y are reported before the network runs over X.
        self.classes_, _ = encode_classes(y, type(self).__name__)
        check_consistent_length(X, y)
        rows = extractor.transform(X)
        self.classifier_ = HeadClassifier(**{name: given[name] for name in _HEAD}).fit(
            rows, y, sample_weight=sample_weight, groups=groups
        )
        self.classes_ = self.classifier_.classes_
        self.extractor_ = extractor
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(extractor, name):
                setattr(self, name, getattr(extractor, name))
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return unnormalised log-probabilities; see :meth:`HeadClassifier.decision_function`."""
        return self._fitted().decision_function(self.extractor_.transform(X))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each item, ``(n,)``."""
        return self._fitted().predict(self.extractor_.transform(X))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return class probabilities ``(n, k)``, columns in the order of ``classes_``."""
        return self._fitted().predict_proba(self.extractor_.transform(X))

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the logarithms of :meth:`predict_proba`."""
        return self._fitted().predict_log_proba(self.extractor_.transform(X))

    def _fitted(self) -> HeadClassifier:
        check_is_fitted(self)
        return self.classifier_

    def __sklearn_tags__(self) -> Any:
        """Say what X may be; see :func:`image_tags`."""
        return image_tags(super().__sklearn_tags__(), self.image_shape)
