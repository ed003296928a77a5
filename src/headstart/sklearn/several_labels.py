"""``HeadMultiLabelClassifier``: headstart's heads for any number of labels a row."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, log_expit, logit
from sklearn.utils.multiclass import type_of_target
from sklearn.utils.validation import check_array, column_or_1d, validate_data

from headstart.heads.contract import Trained, TrainingRows
from headstart.heads.thresholds import Rule, with_thresholds
from headstart.sklearn.faults import InputError, conventional
from headstart.sklearn.heads import ClassWeight, HeadClassifier
from headstart.sklearn.rows import given_rows


class HeadMultiLabelClassifier(HeadClassifier):
    """A classifier of headstart for several labels a row, on features ``(n, d)``.

    ``linear`` is scikit-learn's ``OneVsRestClassifier(LogisticRegression())`` at the same penalty,
    all labels solved together. Penalty and thresholds are chosen inside the rows given to ``fit``.

    Args:
        head: ``linear`` (the default), ``ridge``, ``mlp``, or another kind of head for several
            labels.
        head_options, random_state: as for :class:`~headstart.sklearn.HeadClassifier`.
        threshold: where a label is predicted: ``auto``, the highest F1 on held-out rows;
            ``balanced``, the share of the label; ``half``, 0.5.

    Attributes:
        classes_: ``(k,)``, 0 to k - 1: the columns of y, as in scikit-learn's own estimators.
        head_, chosen_, curves_, notes_: as for :class:`~headstart.sklearn.HeadClassifier`.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.
    """

    class_weight: ClassWeight = None  # no item is of one class

    def __init__(
        self,
        head: str = "linear",
        *,
        head_options: Mapping[str, Any] | None = None,
        threshold: Rule = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.head = head
        self.head_options = head_options
        self.threshold = threshold
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train the head.

        Args:
            X, sample_weight, groups: as for :meth:`HeadClassifier.fit`.
            y: ``(n, k)`` of 0 and 1, two columns or more, as ``MultiLabelBinarizer`` makes them;
                sparse or dense. One class a row ``(n,)`` is taken as by :class:`HeadClassifier`.

        Raises:
            SettingsError: parameters are invalid; all are named.
            InputError, ValueError: X or y is invalid.
        """
        members = memberships(y)
        self.__dict__.pop("several_labels_", None)
        if members is None:
            return super().fit(X, y, sample_weight, groups)
        kind = self._kind("multi-label")
        X, members = validate_data(
            self, X, members, dtype=[np.float64, np.float32], multi_output=True
        )
        given = given_rows(X, sample_weight, groups)
        X, members = X[given.rows], members[given.rows]
        with conventional():
            self._train(kind, given, X, members, members.shape[1], "multi-label")
        self.classes_ = np.arange(members.shape[1])
        self.several_labels_ = True
        return self

    def _finished(self, trained: Trained, rows: TrainingRows) -> Trained:
        several = rows.task == "multi-label"
        return with_thresholds(trained, rows, self.threshold) if several else trained

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the probability of each label, ``(n, k)``."""
        if not self._several():
            return super().predict_proba(X)
        return np.asarray(expit(self._outputs(X) / self.head_.temperature))

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the logarithms of :meth:`predict_proba`."""
        if not self._several():
            return super().predict_log_proba(X)
        return np.asarray(log_expit(self._outputs(X) / self.head_.temperature))

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return how far each label is above its threshold ``(n, k)``, in logits."""
        if not self._several():
            return super().decision_function(X)
        logits = self._outputs(X) / self.head_.temperature
        above = self.head_.thresholds
        return np.asarray(logits if above is None else logits - logit(above))

    def predict(self, X: Any) -> NDArray[Any]:
        """Return 0 and 1 of each label, ``(n, k)``."""
        if not self._several():
            return super().predict(X)
        return np.asarray(self.decision_function(X) > 0, dtype=np.int64)

    def _several(self) -> bool:
        return hasattr(self, "several_labels_")

    def __sklearn_tags__(self) -> Any:
        """Say that y may have several columns."""
        return several_labels_tags(super().__sklearn_tags__())


def several_labels_tags(tags: Any) -> Any:
    """Say that y may have several columns of 0 and 1."""
    tags.classifier_tags.multi_label = True
    tags.target_tags.multi_output = True
    return tags


def numeric_targets(y: Any, who: str) -> NDArray[Any]:
    """Return numbers ``(n,)`` or ``(n, t)``.

    Raises:
        InputError, ValueError: they are missing, no numbers, or not finite.
    """
    if y is None:
        raise InputError(f"{who} requires y to be passed, but the target y is None")
    found = check_array(y, ensure_2d=False, dtype="numeric", input_name="y", allow_nd=False)
    if found.ndim == 2 and found.shape[1] == 1:
        found = column_or_1d(found, warn=True)
    return np.asarray(found)


def memberships(y: Any) -> NDArray[np.float64] | None:
    """Return labels as ``(n, k) float64`` of 0 and 1; None where y is no such matrix."""
    dense = y.toarray() if hasattr(y, "toarray") else y
    try:
        found = type_of_target(dense, input_name="y")
    except (ValueError, TypeError):
        return None
    several = found == "multilabel-indicator"
    return np.asarray(dense, dtype=np.float64) if several else None


__all__ = [
    "HeadMultiLabelClassifier",
    "memberships",
    "numeric_targets",
    "several_labels_tags",
]
