"""``HeadClassifier`` and ``HeadRegressor``: headstart's heads over plain numeric features."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Mapping
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

from headstart.heads.base import Head
from headstart.heads.registry import HeadKind, Trained, TrainingRows, head_fault, head_for
from headstart.sklearn.faults import InputError, conventional, raise_faults
from headstart.sklearn.rows import Given, distinct, given_rows

_NO_VOTE = float(np.log(np.nextafter(0.0, 1.0))) - 1.0
"""Below the logarithm of every share of votes that a double can hold."""
_BLOCK_ROWS = 64

ClassWeight = Mapping[Any, float] | Literal["balanced"] | None


class HeadEstimator(BaseEstimator):  # type: ignore[misc]  # scikit-learn is untyped
    """What classifier and regressor share: from parameters to a head of the registry."""

    def _kind(self, task: str) -> HeadKind:
        raise_faults(self, head_faults(self.get_params(deep=False), task))
        return head_for(self.head, self.head_options)

    def _train(
        self,
        kind: HeadKind,
        given: Given,
        X: Any,
        y: Any,
        n_outputs: int,
        task: str,
        **more: Any,
    ) -> None:
        """Train the head; ``more`` holds names of classes and their weights."""
        if given.weights is not None and not kind.weighted:
            raise InputError(
                f"the head '{kind.name}' takes no sample_weight",
                hint="omit sample_weight, or choose another head",
            )
        rows = TrainingRows(
            X,
            y,
            n_outputs,
            task=task,
            groups=given.groups,
            weights=given.weights,
            names=more.pop("names", None),
            seed=int(check_random_state(self.random_state).randint(2**31 - 1)),
        )
        rows, notes = distinct(rows, merge=kind.weighted)
        settings = kind.settings(self.head_options or {}, **more)
        trained = self._finished(kind.fit(rows, settings), rows)
        self.head_ = trained.head
        self.chosen_ = dict(trained.chosen)
        self.curves_ = trained.curves
        self.notes_ = (*notes, *trained.notes)
        reached = trained.convergence
        if reached is not None and not reached.reached:
            warnings.warn(
                f"the solver stopped at a gradient of {reached.gradient:.1e} after"
                f" {reached.passes} passes, above the tolerance of {reached.tolerance:g}",
                ConvergenceWarning,
                stacklevel=3,
            )

    def _finished(self, trained: Trained, rows: TrainingRows) -> Trained:  # noqa: ARG002
        """Return what was trained with what else it needs to predict."""
        return trained

    def _outputs(self, X: Any) -> NDArray[np.float64]:
        check_is_fitted(self)
        if is_empty(X):
            return np.empty((0, self.head_.n_classes))
        X = validate_data(self, X, reset=False, dtype=[np.float64, np.float32])
        return outputs_one_by_one(self.head_, X)


class HeadClassifier(ClassifierMixin, HeadEstimator):  # type: ignore[misc]
    """A classifier of headstart on features ``(n, d)``.

    Whatever has to be chosen (a penalty, the epoch) is chosen inside the rows given to ``fit``.

    Args:
        head: a kind of head: ``linear`` (multinomial logistic regression; the default of
            :class:`HeadClassifier`), ``auto`` (what wins inside the rows given to ``fit`` among the
            others of this line; the default of ``TransferClassifier``), ``ridge``, ``lda``,
            ``prototype`` (nearest class mean by cosine), ``knn``, ``mlp``, or whatever
            :func:`headstart.heads.register_head` has added.
        head_options: options of that head by name, such as ``{"C": 0.1}`` for ``linear`` or
            ``{"k": 5, "metric": "euclidean"}`` for ``knn``; see :mod:`headstart.heads.options`.
        class_weight: ``balanced``, a mapping from class to weight, or None. A head without such
            an option gets its probabilities multiplied by it, as a change of the prior would.
        random_state: of folds, initial weights and batches. An integer makes ``fit`` repeatable,
            which is why the default is 0; None draws from numpy's global generator.

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
        head: str = "linear",
        *,
        head_options: Mapping[str, Any] | None = None,
        class_weight: ClassWeight = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.head = head
        self.head_options = head_options
        self.class_weight = class_weight
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train the head.

        Args:
            X: features ``(n, d)``, numeric and finite. Equal rows and near copies are held out
                together wherever rows are held out, and the order of rows decides nothing.
            y: ``(n,)`` classes, numbers or text; two or more of them.
            sample_weight: ``(n,)``, how often each row counts, in training and in every choice: 2
                is the row twice, 0 is no row. None: once.
            groups: n names; rows of one group are held out together.

        Raises:
            SettingsError: parameters are invalid; all are named.
            InputError, ValueError: X or y is invalid.
        """
        kind = self._kind("classification")
        refuse_several_labels(y, type(self).__name__)
        X, y = validate_data(self, X, y, dtype=[np.float64, np.float32])
        encode_classes(y, type(self).__name__)  # faults of y before those of weights
        given = given_rows(X, sample_weight, groups)
        X, y = X[given.rows], y[given.rows]
        self.classes_, codes = encode_classes(y, type(self).__name__)
        with conventional():
            weights = class_weights(self.class_weight, self.classes_, codes, given.weights)
            more: dict[str, Any] = {"names": [str(name) for name in self.classes_]}
            if weights is not None:
                more["class_weight"] = weights
            self._train(kind, given, X, codes, len(self.classes_), "classification", **more)
        as_prior = weights is not None and "class_weight" not in kind.option_names
        self._shift = np.log(weights) if as_prior else 0.0  # type: ignore[arg-type]
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
        values = self._outputs(X)
        values = np.where(np.isneginf(values), impossible, values)
        return np.asarray(values / self.head_.temperature + self._shift)


class HeadRegressor(RegressorMixin, MultiOutputMixin, HeadEstimator):  # type: ignore[misc]
    """A regression of headstart on features ``(n, d)``, with one target or several.

    Args:
        head: ``ridge`` (the default), ``mlp``, or another kind of head that does regression.
        head_options, random_state: as for :class:`HeadClassifier`.

    Attributes:
        head_, chosen_, curves_, notes_: as for :class:`HeadClassifier`.
        n_features_in_, feature_names_in_: as everywhere in scikit-learn.
    """

    def __init__(
        self,
        head: str = "ridge",
        *,
        head_options: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.head = head
        self.head_options = head_options
        self.random_state = random_state

    def fit(self, X: Any, y: Any, sample_weight: Any = None, groups: Any = None) -> Self:
        """Train the head.

        Args:
            X, sample_weight, groups: as for :meth:`HeadClassifier.fit`.
            y: ``(n,)`` or ``(n, t)`` targets, finite.

        Raises:
            SettingsError: parameters are invalid; all are named.
            InputError, ValueError: X or y is invalid.
        """
        kind = self._kind("regression")
        X, y = validate_data(
            self, X, y, dtype=[np.float64, np.float32], multi_output=True, y_numeric=True
        )
        given = given_rows(X, sample_weight, groups)
        X, y = X[given.rows], y[given.rows]
        with conventional():
            self._train(kind, given, X, y, 1 if y.ndim == 1 else y.shape[1], "regression")
        self._flat = y.ndim == 1
        return self

    def predict(self, X: Any) -> NDArray[np.float64]:
        """Return the targets, ``(n,)`` or ``(n, t)`` as in ``fit``."""
        values = self._outputs(X)
        return np.asarray(values[:, 0] if self._flat else values)


def head_faults(given: Mapping[str, Any], task: str) -> list[str]:
    """Return what is wrong with a head and its options, one sentence each.

    Args:
        given: the parameters of an estimator.
        task: what the head is for.
    """
    head, options = given["head"], given["head_options"]
    faults = [fault] if (fault := head_fault(head, task)) is not None else []
    if options is not None and not isinstance(options, Mapping):
        return [*faults, f"head_options must be a mapping or None, not {type(options).__name__}"]
    if given.get("class_weight") is not None and "class_weight" in (options or {}):
        faults.append("class_weight is given twice, as a parameter and in head_options")
    return faults if fault is not None else faults + head_for(head, options).faults(options or {})


def outputs_one_by_one(head: Head, x: NDArray[Any]) -> NDArray[np.float64]:
    """Return ``head.decision(x)``, each row as if it were alone.

    Some heads multiply in single precision, where the number of rows decides how a product is
    summed. In blocks of one size a row gets the same result in any company.

    Args:
        head: any head.
        x: checked features ``(n, d)``.
    """
    if not head.rounds_by_company:
        return np.asarray(head.decision(x))
    out = np.empty((len(x), head.n_classes))
    for start in range(0, len(x), _BLOCK_ROWS):
        block = x[start : start + _BLOCK_ROWS]
        filled = np.concatenate([block, np.repeat(block[:1], _BLOCK_ROWS - len(block), axis=0)])
        out[start : start + len(block)] = head.decision(filled)[: len(block)]
    return out


def parameters_of(estimator: type) -> tuple[str, ...]:
    """Return the names of the parameters of an estimator."""
    return tuple(inspect.signature(estimator).parameters)


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


def refuse_several_labels(y: Any, who: str) -> None:
    """Refuse targets of several labels an item, before anything else is done.

    Raises:
        InputError: with the way out.
    """
    shape = tuple(getattr(y, "shape", ()))
    if len(shape) < 2 and isinstance(y, list | tuple | np.ndarray):
        sizes = [
            max(2, len(value)) if isinstance(value, set | frozenset) else len(value)
            for value in y[:1000]
            if isinstance(value, list | tuple | set | frozenset)
        ]
        shape = (len(y), max(sizes, default=1))
    if len(shape) < 2 or (len(shape) == 2 and shape[1] == 1):
        return
    several = who.replace("Classifier", "MultiLabelClassifier")
    raise InputError(
        f"y should be a 1d array: {who} takes one class per item, found several labels or"
        f" columns per item, an array of shape {shape}",
        hint="for one class per item in one-hot columns give y.argmax(1); for several labels per"
        f" item use {several}, or one head for each,"
        f" sklearn.multioutput.MultiOutputClassifier({who}())",
    )


def is_empty(X: Any) -> bool:
    """Return whether X holds no row: an empty list, or an array or table of length 0."""
    shape = getattr(X, "shape", None)
    if shape is not None:
        return len(shape) > 0 and shape[0] == 0
    return isinstance(X, list | tuple) and len(X) == 0


def class_weights(
    class_weight: ClassWeight,
    classes: NDArray[Any],
    codes: NDArray[np.int64],
    sample_weight: NDArray[np.float64] | None = None,
) -> NDArray[np.float64] | None:
    """Return one positive weight per class, ``(k,)``, or None where all weigh the same.

    Args:
        class_weight: as for :class:`HeadClassifier`.
        classes: ``(k,)``, sorted.
        codes: ``(n,)``, indices into them.
        sample_weight: ``(n,)``, how often each item counts; None: once.

    Raises:
        InputError: unknown classes, or weights that are not positive.
    """
    if class_weight is None:
        return None
    try:
        if isinstance(class_weight, str) and class_weight == "balanced":
            counts = np.bincount(codes, sample_weight, minlength=len(classes))
            weights = np.asarray(counts.sum() / (len(classes) * counts), np.float64)
        else:
            found = compute_class_weight(class_weight, classes=classes, y=classes[codes])
            weights = np.asarray(found, np.float64)
    except ValueError as error:
        raise InputError(str(error)) from error
    if not (np.isfinite(weights).all() and weights.min() > 0):
        raise InputError(f"expected class weights above 0, found {weights.tolist()}")
    return weights
