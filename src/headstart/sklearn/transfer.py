"""``TransferClassifier``: images or texts → features of a frozen backbone → a head, in one."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self, cast

import numpy as np
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.utils import check_consistent_length
from sklearn.utils.validation import check_is_fitted
from torch import nn

from headstart.backbones import Backbone, Pooling
from headstart.extraction import Precision
from headstart.heads.thresholds import Rule
from headstart.sklearn.beside import column_faults, encoded, fitted, items_of, joined_names
from headstart.sklearn.extractor import FeatureExtractor, extractor_faults, image_tags
from headstart.sklearn.faults import raise_faults
from headstart.sklearn.heads import (
    ClassWeight,
    HeadClassifier,
    HeadRegressor,
    encode_classes,
    head_faults,
    parameters_of,
    refuse_several_labels,
)
from headstart.sklearn.several_labels import (
    HeadMultiLabelClassifier,
    memberships,
    numeric_targets,
    several_labels_tags,
)

_EXTRACTOR = parameters_of(FeatureExtractor)


class _Transfer(BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """What all of them share: an extractor, and an estimator on its rows."""

    def _check(self, task: str) -> None:
        """Report the faults of all parameters together."""
        given = self.get_params(deep=False)
        faults = column_faults(given["columns"])
        raise_faults(self, extractor_faults(given) + head_faults(given, task) + faults)

    def _fit_on_rows(self, kind: Any, X: Any, y: Any, sample_weight: Any, groups: Any) -> None:
        given = self.get_params(deep=False)
        extractor = FeatureExtractor(**{name: given[name] for name in _EXTRACTOR})
        names = joined_names(given["columns"])
        extractor.fit(items_of(X, names, given["image_column"] or given["text_column"]))
        check_consistent_length(X, y)
        self.columns_ = fitted(X, names)
        self.extractor_ = extractor
        rows = self._rows(X)
        model = kind(**{name: given[name] for name in parameters_of(kind)})
        self.model_ = model.fit(rows, y, sample_weight=sample_weight, groups=groups)
        for name in ("n_features_in_", "feature_names_in_"):
            self.__dict__.pop(name, None)
            if hasattr(extractor, name):
                setattr(self, name, getattr(extractor, name))

    def _rows(self, X: Any) -> NDArray[Any]:
        """Return the features of items, with the columns that join them behind."""
        names = tuple(one.name for one in self.columns_)
        given = self.extractor_
        rows = given.transform(items_of(X, names, given.image_column or given.text_column))
        if not self.columns_:
            return np.asarray(rows)
        return np.concatenate([rows, encoded(X, self.columns_)], axis=1).astype(rows.dtype)

    def _fitted(self) -> Any:
        check_is_fitted(self)
        return self.model_

    def __sklearn_tags__(self) -> Any:
        """Say what X may be; see :func:`image_tags`."""
        return image_tags(super().__sklearn_tags__(), self.image_shape)


class TransferClassifier(ClassifierMixin, _Transfer):  # type: ignore[misc]
    """Classify images or texts by a head on features of a frozen, pre-trained network.

    It is :class:`FeatureExtractor` and :class:`HeadClassifier` in one, with the parameters of
    both, so that one search covers layers and penalties. The network runs once an item and
    layer: every fold and every other parameter finds the features in the cache.

    Args:
        backbone, layer, pooling, backbone_args, image_shape, value_range, image_column,
            text_column, cache, batch_size, precision, device, workers, verbose: as for
            :class:`FeatureExtractor`.
        columns: of a table X that join the features, as ``"age,site"`` or a list: numbers are
            standardised, categories one-hot.
        head, head_options, class_weight, random_state: as for :class:`HeadClassifier`.

    Attributes:
        classes_: ``(k,)``, sorted.
        extractor_: the :class:`FeatureExtractor`.
        columns_: how the joined columns become numbers.
        model_, classifier_: the trained :class:`HeadClassifier`, with what it chose and why.
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
        columns: str | Sequence[str] | None = None,
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
        self.columns = columns
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
        self._check("classification")
        refuse_several_labels(y, type(self).__name__)
        # Faults of y are reported before the network runs over X.
        self.classes_, _ = encode_classes(y, type(self).__name__)
        self._fit_on_rows(HeadClassifier, X, y, sample_weight, groups)
        self.classes_ = self._fitted().classes_
        return self

    @property
    def classifier_(self) -> HeadClassifier:
        """The trained :class:`HeadClassifier`, another name of ``model_``."""
        return cast(HeadClassifier, self._fitted())

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return unnormalised log-probabilities; see :meth:`HeadClassifier.decision_function`."""
        return np.asarray(self._fitted().decision_function(self._rows(X)))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each item, ``(n,)``."""
        return np.asarray(self._fitted().predict(self._rows(X)))

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return class probabilities ``(n, k)``, columns in the order of ``classes_``."""
        return np.asarray(self._fitted().predict_proba(self._rows(X)))

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the logarithms of :meth:`predict_proba`."""
        return np.asarray(self._fitted().predict_log_proba(self._rows(X)))


class TransferMultiLabelClassifier(TransferClassifier):
    """Find several labels in images by a head on features of a frozen, pre-trained network.

    Args:
        backbone, layer, pooling, backbone_args, image_shape, value_range, image_column,
            text_column, cache, batch_size, precision, device, workers, verbose: as for
            :class:`FeatureExtractor`.
        columns: of a table X that join the features, as ``"age,site"`` or a list: numbers are
            standardised, categories one-hot.
        head, head_options, threshold, random_state: as for :class:`HeadMultiLabelClassifier`.

    Attributes:
        classes_: ``(k,)``, the columns of y.
        extractor_: the :class:`FeatureExtractor`.
        columns_: how the joined columns become numbers.
        model_: the trained :class:`HeadMultiLabelClassifier`, with what it chose and why.
        n_features_in_, feature_names_in_: as for :class:`FeatureExtractor`.
    """

    def __init__(
        self,
        backbone: str | Backbone | nn.Module = "auto",
        *,
        layer: str | None = None,
        pooling: Pooling | None = None,
        head: str = "linear",
        head_options: Mapping[str, Any] | None = None,
        threshold: Rule = "auto",
        random_state: int | np.random.RandomState | None = 0,
        backbone_args: Mapping[str, Any] | None = None,
        image_shape: Literal["square"] | tuple[int, ...] | None = None,
        value_range: tuple[float, float] | None = None,
        image_column: str | None = None,
        text_column: str | None = None,
        columns: str | Sequence[str] | None = None,
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
        self.threshold = threshold
        self.random_state = random_state
        self.backbone_args = backbone_args
        self.image_shape = image_shape
        self.value_range = value_range
        self.image_column = image_column
        self.text_column = text_column
        self.columns = columns
        self.cache = cache
        self.batch_size = batch_size
        self.precision = precision
        self.device = device
        self.workers = workers
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Extract the features that are not in the cache, and train the head.

        Args:
            X: images; see :meth:`FeatureExtractor.transform`.
            y: ``(n, k)`` of 0 and 1; see :meth:`HeadMultiLabelClassifier.fit`.
            sample_weight, groups: as for :meth:`HeadClassifier.fit`.

        Raises:
            SettingsError, InputError, ValueError, BadFilesError: as for
                :meth:`TransferClassifier.fit`.
        """
        members = memberships(y)
        self._check("classification" if members is None else "multi-label")
        if members is None:
            refuse_several_labels(y, type(self).__name__)
            encode_classes(y, type(self).__name__)
        self._fit_on_rows(
            HeadMultiLabelClassifier, X, y if members is None else members, sample_weight, groups
        )
        self.classes_ = self.model_.classes_
        return self

    def __sklearn_tags__(self) -> Any:
        """Say that y may have several columns, and what X may be."""
        return several_labels_tags(super().__sklearn_tags__())


class TransferRegressor(RegressorMixin, MultiOutputMixin, _Transfer):  # type: ignore[misc]
    """Predict numbers from images by a head on features of a frozen, pre-trained network.

    Args:
        backbone, layer, pooling, backbone_args, image_shape, value_range, image_column,
            text_column, cache, batch_size, precision, device, workers, verbose: as for
            :class:`FeatureExtractor`.
        columns: of a table X that join the features, as ``"age,site"`` or a list: numbers are
            standardised, categories one-hot.
        head, head_options, random_state: as for :class:`HeadRegressor`.

    Attributes:
        extractor_: the :class:`FeatureExtractor`.
        columns_: how the joined columns become numbers.
        model_: the trained :class:`HeadRegressor`, with what it chose and why.
        n_features_in_, feature_names_in_: as for :class:`FeatureExtractor`.
    """

    def __init__(
        self,
        backbone: str | Backbone | nn.Module = "auto",
        *,
        layer: str | None = None,
        pooling: Pooling | None = None,
        head: str = "ridge",
        head_options: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = 0,
        backbone_args: Mapping[str, Any] | None = None,
        image_shape: Literal["square"] | tuple[int, ...] | None = None,
        value_range: tuple[float, float] | None = None,
        image_column: str | None = None,
        text_column: str | None = None,
        columns: str | Sequence[str] | None = None,
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
        self.random_state = random_state
        self.backbone_args = backbone_args
        self.image_shape = image_shape
        self.value_range = value_range
        self.image_column = image_column
        self.text_column = text_column
        self.columns = columns
        self.cache = cache
        self.batch_size = batch_size
        self.precision = precision
        self.device = device
        self.workers = workers
        self.verbose = verbose

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Extract the features that are not in the cache, and train the head.

        Args:
            X: images; see :meth:`FeatureExtractor.transform`.
            y: ``(n,)`` or ``(n, t)`` numbers.
            sample_weight, groups: as for :meth:`HeadClassifier.fit`.

        Raises:
            SettingsError, InputError, ValueError, BadFilesError: as for
                :meth:`TransferClassifier.fit`.
        """
        self._check("regression")
        numbers = numeric_targets(y, type(self).__name__)
        self._fit_on_rows(HeadRegressor, X, numbers, sample_weight, groups)
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the targets, ``(n,)`` or ``(n, t)`` as in ``fit``."""
        return np.asarray(self._fitted().predict(self._rows(X)))
