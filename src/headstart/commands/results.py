"""Results that need not be computed twice: trained heads and baselines, beside the feature cache.

A head is a function of rows, labels and settings; a baseline of items, labels and seed. Both are
kept under the digest of what they depend on, so that a repeated run trains nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from headstart._version import __version__
from headstart.core.records import Baseline, Curve, Interval, Reference, Score, from_plain, to_plain
from headstart.heads import Trained, unpack_head
from headstart.heads.held_out import Calibration
from headstart.heads.outliers import Outliers
from headstart.heads.registry import automatic_heads, head_kind
from headstart.store import Result, Store, result_key

_CALIBRATION = "calibration."


def trained_once(
    store: Store, key: Mapping[str, Any], compute: Callable[[], Trained]
) -> tuple[Trained, bool]:
    """Return a trained head, and whether it had been trained before.

    Args:
        store: where it is kept.
        key: everything the head depends on, as plain values and arrays.
        compute: trains it.
    """
    return store.results("heads").once(_key(key), compute, _pack_trained, _unpack_trained)


def outliers_once(
    store: Store, key: Mapping[str, Any], compute: Callable[[], Outliers]
) -> Outliers:
    """Return what tells strange items, computed or found; arguments as for :func:`trained_once`."""
    kept = store.results("outliers")
    return kept.once(
        _key(key),
        compute,
        lambda made: Result(*made.pack()),
        lambda found: Outliers.unpack(found.arrays, found.values),
    )[0]


def among(head: str) -> dict[str, Any]:
    """Return what the key of a head that chooses itself has beside that of any other."""
    if head_kind(head).name != "auto":
        return {}
    return {"among": list(automatic_heads()), "rule": "log loss and accuracy"}


def baselines_once(
    store: Store, key: Mapping[str, Any], compute: Callable[[], tuple[Baseline | Reference, ...]]
) -> tuple[Baseline | Reference, ...]:
    """Return baselines, computed or found; arguments as for :func:`trained_once`."""
    kept = store.results("baselines")
    return kept.once(_key(key), compute, _pack_baselines, _unpack_baselines)[0]


def _key(key: Mapping[str, Any]) -> str:
    return result_key({"headstart": __version__, **to_plain(dict(key))})


def _pack_trained(made: Trained) -> Result:
    arrays, head = made.head.pack()
    choice = {"chosen": dict(made.chosen), "curves": made.curves, "notes": made.notes}
    kept: dict[str, Any] = {"uncalibrated": made.uncalibrated}
    if made.calibration is not None:
        held_out, kept["calibration"] = made.calibration.pack()
        arrays |= {f"{_CALIBRATION}{name}": array for name, array in held_out.items()}
    return Result(arrays, to_plain({"head": head, **choice, **kept}))


def _unpack_trained(found: Result) -> Trained:
    values = found.values
    own = {n: a for n, a in found.arrays.items() if not n.startswith(_CALIBRATION)}
    head = unpack_head(own, values["head"], "the cache")
    curves = tuple(map(Curve.from_plain, values["curves"]))
    calibration = None
    if "calibration" in values:
        held_out = {
            n.removeprefix(_CALIBRATION): a
            for n, a in found.arrays.items()
            if n.startswith(_CALIBRATION)
        }
        calibration = Calibration.unpack(held_out, values["calibration"])
    return Trained(
        head,
        values["chosen"],
        curves,
        tuple(values["notes"]),
        calibration=calibration,
        uncalibrated=values["uncalibrated"],
    )


def _pack_baselines(made: tuple[Baseline | Reference, ...]) -> Result:
    return Result(values={"baselines": to_plain(made)})


def _unpack_baselines(found: Result) -> tuple[Baseline | Reference, ...]:
    return tuple(_baseline(values) for values in found.values["baselines"])


def _baseline(values: Mapping[str, Any]) -> Baseline | Reference:
    if "figures" in values:
        return from_plain(Reference, values)
    score = values["accuracy"]
    interval = None if score["interval"] is None else Interval(**score["interval"])
    return Baseline(values["name"], values["description"], Score(score["value"], interval))
