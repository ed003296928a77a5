"""What a head is trained on, what training returns, and how a kind of head describes itself.

Importing this loads no numerical library, so that ``--help`` can list the heads.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from headstart.core.errors import ConfigError
from headstart.core.progress import Reporter, SilentReporter
from headstart.core.records import Curve, Score
from headstart.core.threads import fair_threads
from headstart.core.wording import did_you_mean

if TYPE_CHECKING:
    import numpy as np

    from headstart.core.division import Folds
    from headstart.core.row_keys import Keys
    from headstart.heads.base import Head
    from headstart.heads.held_out import Calibration
    from headstart.heads.logistic import Convergence
    from headstart.heads.merges import Reduction

NEAR = 0.98
"""The least cosine of centred features at which two items are near copies."""


@dataclass(frozen=True, eq=False)
class TrainingRows:
    """Everything a head may see: features and targets of the training rows, and nothing else.

    Attributes:
        x: features ``(n, d)``, an array or rows on disk, as
            :func:`~headstart.heads.features.as_rows` takes them.
        y: targets: class indices ``(n,)``, memberships ``(n, k)`` or values ``(n,)``, ``(n, t)``.
        n_classes: the number of classes, labels or targets.
        task: what ``y`` means: ``classification``, ``multi-label`` or ``regression``.
        keys: n content ids, from which divisions follow; equal ones are held out together. None:
            those of the rows themselves. Near copies are looked for, unless the keys are those of
            :func:`~headstart.heads.keep_together`.
        groups: n names; rows of one group are held out together, as in
            :mod:`headstart.core.division`.
        weights: ``(n,)``, how often each row counts, above 0, in training and where rows judge what
            is chosen; None: once. Only kinds that are ``weighted`` take them.
        validation: ``(n,) bool``, rows that may decide when training stops but are not fitted;
            None: a head that needs such rows holds some out itself. Heads whose kind does not
            stop early ignore it.
        names: class names, for notes.
        seed: of every random choice.
        reporter: receives progress.
    """

    x: object
    y: object
    n_classes: int
    task: str = "classification"
    keys: Keys | None = None
    groups: Keys | None = None
    weights: np.ndarray | None = None
    validation: np.ndarray | None = None
    names: Sequence[str] | None = None
    seed: int = 0
    reporter: Reporter = field(default_factory=SilentReporter)

    def take(self, rows: np.ndarray, *, seed: int | None = None) -> TrainingRows:
        """Return some of the rows, without validation rows.

        Args:
            rows: ascending indices ``(m,)``; streamed features are not read yet.
            seed: another one; None keeps it.
        """
        import numpy as np

        from headstart.core.row_keys import take_keys
        from headstart.heads.features import subset

        return dataclasses.replace(
            self,
            x=subset(self.x, rows),  # type: ignore[arg-type]
            y=np.asarray(self.y)[rows],
            keys=take_keys(self.keys, rows),
            groups=take_keys(self.groups, rows),
            weights=None if self.weights is None else np.asarray(self.weights)[rows],
            validation=None,
            seed=self.seed if seed is None else seed,
        )


@dataclass(frozen=True, eq=False)
class Trained:
    """A trained head and how it came about.

    Attributes:
        head: the head.
        chosen: hyper-parameters that training chose, by name, and for ``auto`` the ``head``. Those
            that are also options fit the same head again without choosing, see
            :meth:`HeadKind.with_chosen`.
        curves: what was chosen from, or loss and accuracy by epoch.
        notes: what was decided on the user's behalf, one sentence each.
        convergence: the certificate of an iterative solver; None where there is none.
        held_out: accuracy of what was chosen on rows that were held out to choose it; None where
            nothing was.
        held_out_probabilities: ``(n, k) float64``, calibrated, for each training row by a head
            that did not train on it; what a check of labels reads.
        details: anything else that the solver reports, as plain values.
        calibration: what sets of a chosen coverage are made of; None: nothing was kept.
        uncalibrated: why nothing was kept.
        again: trains what was chosen on other rows, without choosing; None: its kind does so,
            :meth:`HeadKind.with_chosen`. Its probabilities may be uncalibrated.
    """

    head: Head
    chosen: Mapping[str, float | str] = field(default_factory=dict)
    curves: tuple[Curve, ...] = ()
    notes: tuple[str, ...] = ()
    convergence: Convergence | None = None
    held_out: Score | None = None
    held_out_probabilities: np.ndarray | None = None
    details: Mapping[str, Any] = field(default_factory=dict)
    calibration: Calibration | None = None
    uncalibrated: str = ""
    again: Callable[[TrainingRows], Head] | None = None


@dataclass(frozen=True, eq=False)
class Trial:
    """One candidate of a sweep, scored on the rows of every fold by heads that did not see them.

    Attributes:
        options: the options that make the candidate.
        accuracy: ``(f,)``, by fold, over all divisions.
        counts: ``(f,)``, held-out rows of each fold.
        log_loss: mean over the held-out rows, in nats.
        given_up: the solver dropped the candidate early because it was clearly beaten.
        refit: trains the candidate on all rows, calibrated on what was held out.
    """

    options: Mapping[str, Any]
    accuracy: np.ndarray
    counts: np.ndarray
    log_loss: float
    given_up: bool
    refit: Callable[[], Head]


@dataclass(frozen=True, eq=False)
class SweepRequest:
    """What a sweep asks a head that scores its candidates together.

    Attributes:
        view: name of the features, for curves.
        divisions: the folds, one division for each seed.
        grid: values of C.
        standardise: whether to scale features; each value is tried.
        shared: options common to all candidates, such as ``class_weight`` and ``device``.
    """

    view: str
    divisions: tuple[Folds, ...]
    grid: tuple[float, ...]
    standardise: tuple[bool, ...]
    shared: Mapping[str, Any]


@dataclass(frozen=True)
class NoOptions:
    """The options of a head that has none."""


@dataclass(frozen=True, eq=False)
class HeadKind:
    """One kind of head: how it is called, configured, trained and tried.

    Attributes:
        name: the canonical name, as reports and run folders show it.
        summary: one line for ``--help`` and tables, starting in lower case, without a full stop.
        fit: trains it: rows and an instance of ``options`` in, :class:`Trained` out. It raises
            ``HeadError`` for rows that do not fit.
        options: a frozen dataclass of :func:`~headstart.core.settings.option`, every one with a
            default. Some names have the same meaning in every head that has them:
            ``class_weight``, ``standardise``, ``folds`` and ``device`` are set by whoever trains
            several heads alike.
        aliases: other names that are accepted.
        tasks: the tasks it can be trained for.
        candidates: option values that a sweep tries, given the number of rows; each is combined
            with the standardisations if there is an option ``standardise``. None: the defaults.
        solve: scores all candidates of a sweep together, with their curves; None: one fit for
            every candidate and fold.
        swept: whether a sweep tries it unless told which heads to try.
        calibrated: whether its probabilities are used as trained; otherwise a sweep calibrates
            them on the rows that it held out.
        stops_early: whether ``TrainingRows.validation`` decides when training stops. Such a head
            is judged and used as trained; any other is refitted once its options are chosen.
        weighted: whether it takes ``TrainingRows.weights``.
        weighs_labels: whether its ``class_weight`` weighs several labels an item, too: presence and
            absence of each alike.
        linear: whether it trains a :class:`~headstart.heads.linear.LinearHead`, the form in which
            fine-tuning can take over a head and train it further.
        automatic: whether the head ``auto`` chooses from this kind, too, unless it is told from
            which. It has to be trained fast, once for every fold.
        few: options where labels are few; rows are scaled then, see
            :mod:`headstart.heads.prepared`, and ``standardise`` is off.
        choosing: by option that may be ``auto``: the options that only serve to choose it, and
            contradict a given value.
        coarse: options for fitting it many times over, where heads are compared and none is kept.
        reduce: trains it on classes by sums over parts of the rows, which may lie on many machines;
            None: it needs all rows in one place.
    """

    name: str
    summary: str
    fit: Callable[[TrainingRows, Any], Trained]
    options: type = NoOptions
    aliases: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ("classification",)
    candidates: Callable[[int], Sequence[Mapping[str, Any]]] | None = None
    solve: (
        Callable[[TrainingRows, SweepRequest], tuple[Sequence[Trial], Sequence[Curve]]] | None
    ) = None
    swept: bool = True
    calibrated: bool = True
    stops_early: bool = False
    weighted: bool = False
    weighs_labels: bool = False
    linear: bool = False
    automatic: bool = False
    few: Mapping[str, Any] = field(default_factory=dict)
    choosing: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    coarse: Mapping[str, Any] = field(default_factory=dict)
    reduce: Callable[[TrainingRows, Any, Reduction], Trained] | None = None

    def __post_init__(self) -> None:
        # Here, so that heads of other packages are trained so, too.
        for name in ("fit", "solve", "reduce"):
            if (train := getattr(self, name)) is not None:
                object.__setattr__(self, name, fair_threads()(train))

    @property
    def option_names(self) -> tuple[str, ...]:
        """The names of its options."""
        return tuple(f.name for f in dataclasses.fields(self.options))

    def faults(self, given: Mapping[str, Any]) -> list[str]:
        """Return all that is wrong with options by name, one sentence each."""
        return self._settled(given)[1]

    def settings(self, given: Mapping[str, Any], **shared: Any) -> Any:
        """Return an instance of ``options``.

        Args:
            given: options by name.
            shared: further ones, which are left out where the head has no such option and which
                ``given`` overrides.

        Raises:
            ConfigError: unknown names (with the nearest ones), values out of range, and options
                that contradict one another; all are named.
        """
        common = {name: value for name, value in shared.items() if name in self.option_names}
        settings, faults = self._settled({**common, **given}, given)
        if faults:
            raise ConfigError(tuple(faults))
        return settings

    def _settled(
        self, values: Mapping[str, Any], given: Mapping[str, Any] | None = None
    ) -> tuple[Any, list[str]]:
        known, faults = self.option_names, []
        given = values if given is None else given
        for name in given:
            if name not in known:
                listed = f"it has {', '.join(known)}" if known else "it has none"
                near = did_you_mean(str(name), known) or listed
                faults.append(f"head '{self.name}' has no option '{name}' ({near})")
        for parameter, serving in self.choosing.items():
            if given.get(parameter, "auto") != "auto":
                faults += [
                    f"{name} chooses {parameter}, which is given as {given[parameter]!r}"
                    for name in serving
                    if name in given
                ]
        try:
            settings = self.options(**{k: v for k, v in values.items() if k in known})
        except ConfigError as error:
            return None, [*faults, *error.faults]
        return settings, faults

    def with_chosen(self, options: Any, chosen: Mapping[str, float | str]) -> Any:
        """Return options that fit what training has chosen, without choosing again."""
        known = {name: value for name, value in chosen.items() if name in self.option_names}
        return dataclasses.replace(options, **known)


__all__ = ["NEAR", "HeadKind", "NoOptions", "SweepRequest", "Trained", "TrainingRows", "Trial"]
