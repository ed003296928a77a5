"""``HeadClassifier`` and ``HeadRegressor``: headstart's heads over plain numeric features."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from scipy.special import log_softmax, softmax
from sklearn.base import BaseEstimator, ClassifierMixin, MultiOutputMixin, RegressorMixin
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils import check_random_state
from sklearn.utils.class_weight import compute_class_weight
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    assert_all_finite,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from headstart.sklearn.faults import InputError, conventional, raise_faults
from headstart.sklearn.solvers import (
    CLASSIFIERS,
    REGRESSORS,
    Settings,
    Solved,
    head_faults,
    logits,
    solve_classification,
    solve_regression,
    without_effect,
)

ClassifierName = Literal["logistic", "ridge", "lda", "knn", "prototype", "mlp"]
RegressorName = Literal["ridge", "mlp"]
_NO_VOTE = float(np.log(np.nextafter(0.0, 1.0))) - 1.0
"""Below the logarithm of every share of votes that a double can hold."""
ClassWeight = Mapping[Any, float] | Literal["balanced"] | None


class _HeadEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """What classifier and regressor share: how parameters reach the solver."""

    def _check_settings(self, heads: Mapping[str, tuple[str, ...]]) -> None:
        given = self.get_params(deep=False)
        raise_faults(self, head_faults(given, heads))
        for name in without_effect(given, defaults_of(type(self)), heads):
            warnings.warn(
                f"head={self.head!r} takes no {name}, so {name}={given[name]!r} has no effect",
                UserWarning,
                stacklevel=3,
            )

    def _settings(self) -> Settings:
        given = self.get_params(deep=False)
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        return Settings.of(given, seed)

    def _keep(self, solved: Solved) -> None:
        self.head_ = solved.head
        self.chosen_ = dict(solved.chosen)
        self.curves_ = solved.curves
        self.notes_ = solved.notes
        if solved.unconverged is not None:
            warnings.warn(solved.unconverged, ConvergenceWarning, stacklevel=3)


class HeadClassifier(ClassifierMixin, _HeadEstimator):  # type: ignore[misc]
    """A classifier of headstart on features ``(n, d)``.

    Whatever has to be chosen (``C``, ``alpha``, the epoch) is chosen inside the rows given to
    ``fit``.

    Args:
        head: ``logistic`` (multinomial logistic regression; the default, since it is hard to beat
            on good features), ``ridge``, ``lda``, ``knn``, ``prototype`` (nearest class mean by
            cosine) or ``mlp``.
        C: inverse penalty of ``logistic``; ``auto`` takes the best of 45 values by
            cross-validation, as DINOv2's linear evaluation does on its own grid.
        alpha: penalty of ``ridge``; ``auto`` takes the least leave-one-out error.
        shrinkage: of the covariance of ``lda``, in [0, 1]; ``auto`` is Ledoit and Wolf's.
        n_neighbors: of ``knn``; 20 as in DINO.
        hidden: widths of the hidden layers of ``mlp``.
        dropout, lr, epochs: of ``mlp``; a fifth of the rows decides when to stop.
        class_weight: ``balanced``, a mapping from class to weight, or None. ``lda``, ``knn`` and
            ``prototype`` multiply their probabilities by it, as a change of the prior would.
        standardise: whether ``logistic``, ``ridge`` and ``lda`` scale each feature to unit
            deviation first.
        folds: of the cross-validation of ``logistic`` for ``C="auto"``.
        random_state: of folds, initial weights and batches. An integer makes ``fit`` repeatable,
            which is why the default is 0; None draws from numpy's global generator.
        options: further arguments of the head's function in :mod:`headstart.heads`, such as
            ``{"metric": "euclidean"}`` for ``knn`` or ``{"optimizer": "sgd"}`` for ``mlp``.

    Attributes:
        classes_: ``(k,)``, sorted.
        head_: the :class:`~headstart.heads.Head`, which ``save`` writes without pickle.
        chosen_: hyper-parameters that ``fit`` chose, by name.
        curves_: held-out accuracy against the hyper-parameter, or the training curves.
        notes_: what was decided on your behalf, one sentence each.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.
    """

    def __init__(
        self,
        head: ClassifierName = "logistic",
        *,
        C: float | Literal["auto"] = "auto",
        alpha: float | Literal["auto"] = "auto",
        shrinkage: float | Literal["auto"] = "auto",
        n_neighbors: int = 20,
        hidden: Sequence[int] = (256,),
        dropout: float = 0.5,
        lr: float = 1e-3,
        epochs: int = 100,
        class_weight: ClassWeight = None,
        standardise: bool = True,
        folds: int = 5,
        random_state: int | np.random.RandomState | None = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.head = head
        self.C = C
        self.alpha = alpha
        self.shrinkage = shrinkage
        self.n_neighbors = n_neighbors
        self.hidden = hidden
        self.dropout = dropout
        self.lr = lr
        self.epochs = epochs
        self.class_weight = class_weight
        self.standardise = standardise
        self.folds = folds
        self.random_state = random_state
        self.options = options

    def fit(self, X: Any, y: Any) -> Self:
        """Train the head.

        Args:
            X: features ``(n, d)``, numeric and finite.
            y: ``(n,)`` classes, numbers or text; two or more of them.

        Raises:
            SettingsError: parameters are unfit; all are named.
            InputError, ValueError: X or y is unfit.
        """
        self._check_settings(CLASSIFIERS)
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        self.classes_, codes = encode_classes(y, type(self).__name__)
        with conventional():
            weights = class_weights(self.class_weight, self.classes_, y)
            solved = solve_classification(X, codes, self.classes_, weights, self._settings())
        self._keep(solved)
        self._shift = solved.shift
        return self

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """Return unnormalised log-probabilities.

        Returns:
            ``(n, k)``; for two classes ``(n,)``, positive for the second. All are finite, as
            scorers ask: a class without a vote of ``knn``, whose probability is 0, gets about
            -745, which is below every class with a vote.
        """
        values = self._logits(X, impossible=_NO_VOTE)
        if len(self.classes_) == 2:
            return np.asarray(values[:, 1] - values[:, 0])
        return values

    def predict(self, X: Any) -> NDArray[Any]:
        """Return the most probable class of each row, ``(n,)``."""
        # Not in one line: classes_ is only there once the head is known to be fitted.
        best = self._logits(X).argmax(axis=1)
        return np.asarray(self.classes_[best])

    def predict_proba(self, X: Any) -> NDArray[np.float64]:
        """Return class probabilities ``(n, k)``, columns in the order of ``classes_``."""
        return np.asarray(softmax(self._logits(X), axis=1))

    def predict_log_proba(self, X: Any) -> NDArray[np.float64]:
        """Return the logarithms of :meth:`predict_proba`."""
        return np.asarray(log_softmax(self._logits(X), axis=1))

    def _logits(self, X: Any, impossible: float = -np.inf) -> NDArray[np.float64]:
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        values = logits(self.head_, X)
        values = np.where(np.isneginf(values), impossible, values)
        return np.asarray(values / self.head_.temperature + self._shift)


class HeadRegressor(RegressorMixin, MultiOutputMixin, _HeadEstimator):  # type: ignore[misc]
    """A regression of headstart on features ``(n, d)``, with one target or several.

    Args:
        head: ``ridge`` (the default) or ``mlp``.
        alpha, hidden, dropout, lr, epochs, standardise, random_state, options: as for
            :class:`HeadClassifier`. ``dropout`` is 0 here: noise in the hidden layer biases the
            scale of an output that no softmax normalises.

    Attributes:
        head_, chosen_, curves_, notes_: as for :class:`HeadClassifier`.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.
    """

    def __init__(
        self,
        head: RegressorName = "ridge",
        *,
        alpha: float | Literal["auto"] = "auto",
        hidden: Sequence[int] = (256,),
        dropout: float = 0.0,
        lr: float = 1e-3,
        epochs: int = 100,
        standardise: bool = True,
        random_state: int | np.random.RandomState | None = 0,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.head = head
        self.alpha = alpha
        self.hidden = hidden
        self.dropout = dropout
        self.lr = lr
        self.epochs = epochs
        self.standardise = standardise
        self.random_state = random_state
        self.options = options

    def fit(self, X: Any, y: Any) -> Self:
        """Train the head.

        Args:
            X: features ``(n, d)``, numeric and finite.
            y: ``(n,)`` or ``(n, t)`` targets, finite.

        Raises:
            SettingsError: parameters are unfit; all are named.
            InputError, ValueError: X or y is unfit.
        """
        self._check_settings(REGRESSORS)
        X, y = validate_data(
            self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True
        )
        with conventional():
            solved = solve_regression(X, y, self._settings())
        self._keep(solved)
        self._flat = y.ndim == 1
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the targets, ``(n,)`` or ``(n, t)`` as in ``fit``."""
        check_is_fitted(self)
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        values = logits(self.head_, X)
        return np.asarray(values[:, 0] if self._flat else values)


def defaults_of(estimator: type) -> dict[str, Any]:
    """Return the default of every parameter of an estimator."""
    parameters = inspect.signature(estimator).parameters
    return {name: parameter.default for name, parameter in parameters.items()}


def encode_classes(y: Any, who: str) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """Return the sorted classes ``(k,)`` and the index of each label ``(n,) int64``.

    Raises:
        InputError: fewer than two classes.
        ValueError: y is missing, not finite, or no list of classes.
    """
    if y is None:
        raise InputError(f"{who} requires y to be passed, but the target y is None")
    y = column_or_1d(y, warn=True)
    assert_all_finite(y, input_name="y")
    check_classification_targets(y)
    classes, codes = np.unique(y, return_inverse=True)
    if len(classes) < 2:
        found = f"one class ({classes[0]!r})" if len(classes) else "no class"
        raise InputError(
            f"expected two classes or more in y, found {found}",
            hint="a classifier needs items of two classes or more",
        )
    return classes, np.asarray(codes, dtype=np.int64)


def class_weights(
    class_weight: ClassWeight, classes: NDArray[Any], y: Any
) -> NDArray[np.float64] | None:
    """Return one positive weight a class, ``(k,)``, or None where all weigh the same.

    Raises:
        InputError: unknown classes, or weights that are not positive.
    """
    if class_weight is None:
        return None
    try:
        weights = np.asarray(compute_class_weight(class_weight, classes=classes, y=y), np.float64)
    except ValueError as error:
        raise InputError(str(error)) from error
    if not (np.isfinite(weights).all() and weights.min() > 0):
        raise InputError(f"expected class weights above 0, found {weights.tolist()}")
    return weights
