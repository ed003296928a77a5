"""A backbone against data: are they what it was trained on? No training, no labels."""

from __future__ import annotations

from typing import Any

from headstart.audit import Finding, Report
from headstart.audit.checks.copies import TrainTestCopies
from headstart.audit.checks.input_mismatch import InputMismatch
from headstart.audit.checks.input_resolution import InputResolution
from headstart.commands.audit.options import AUDIT, AuditConfig
from headstart.commands.embedding import load_backbone
from headstart.commands.session import Session
from headstart.commands.settings import BackboneLike, ReadOptions, RunOptions
from headstart.core.records import to_plain
from headstart.core.wording import count
from headstart.data import Dataset, Inputs
from headstart.study import CompareConfig
from headstart.study.inputs import InputCheck, check_inputs, input_range
from headstart.study.probing import find_facts
from headstart.study.repetitions import divide, drop_unreadable

ITEMS = 256
"""Training items that are looked at, and test items likewise."""
BATCH = 32
ENLARGED = 4.0
"""From this factor on, an enlargement is worth a remark."""


def audit_data(
    data: Any,
    backbone: BackboneLike = "headstart/glyphs",
    *,
    config: AuditConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> Report:
    """Check whether data, as they are preprocessed, are what a backbone was trained on.

    The usual preprocessings are tried on a few training items, and the running statistics of the
    first batch norms tell which fits; items that stand on both sides of the split are counted.

    Args:
        data, backbone, run, reading, **overrides: as for :func:`headstart.fit`.
        config: of the audit; only scripts need it.

    Raises:
        DataError, BackboneError, ConfigError: as for :func:`headstart.fit`.
    """
    _, run, reading, spec = AUDIT.settle(overrides, config, run, reading, backbone)
    session = Session(run)
    network = load_backbone(spec)
    dataset = session.open_dataset(data, reading)
    readable = drop_unreadable(dataset, network.inputs, run.on_bad, session.reporter)
    few = CompareConfig(train_items=ITEMS, test_items=ITEMS, repeats=1)
    sample = divide(readable, few, seed=run.seed)
    looked = sample.look(network.inputs, network.device)
    norms = find_facts(network.at(network.layer, "none"), looked[:8]).norms
    findings: list[Finding] = []
    if norms:
        checked = check_inputs(network, norms, sample, BATCH)
        findings += _mismatch(checked, network.inputs)
        findings += _enlarged(checked)
    else:
        measured = input_range(looked)
        if measured is not None and measured.unusual:
            findings.append(
                InputMismatch().finding(
                    f"The network is given numbers from {measured.low:.3g} to"
                    f" {measured.high:.3g} with a standard deviation of {measured.deviation:.3g},"
                    " which no common normalisation produces.",
                    confidence=0.8,
                    evidence=to_plain(measured),
                    fix="headstart fit … --mean 0.5 --std 0.5  # as in pre-training",
                )
            )
    findings += _copies(readable)
    notes = (f"looked at {count(len(sample.sample), 'training item')}", *session.notes)
    return Report(tuple(findings), 0, 0, None, notes)


def _mismatch(checked: InputCheck, given: Inputs) -> list[Finding]:
    better = checked.correction
    if better is None:
        return []
    options = " ".join(
        f"--{name.replace('_', '-')} {_value(value)}"
        for name, value in better.inputs.values().items()
        if value != given.values().get(name)
    )
    factor = checked.given.early / max(better.early, 1e-9)
    return [
        InputMismatch().finding(
            f"The inputs do not match the backbone: {better.name}, they lower the drift of the"
            f" first batch norms from {checked.given.early:.3g} to {better.early:.2g} nats.",
            module=checked.layers[0],
            severity="error" if factor >= 100 else "warning",
            confidence=min(0.99, 1 - 0.5 / factor),
            evidence={
                "mistake": better.mends,
                "correction": better.name,
                "drift as given": round(checked.given.early, 4),
                "drift by correction": {t.name: round(t.early, 4) for t in checked.trials},
                "layers": list(checked.layers),
                "images": checked.items,
            },
            fix=f"headstart fit … {options}",
        )
    ]


def _enlarged(checked: InputCheck) -> list[Finding]:
    size = checked.enlarged
    if size is None or size.factor < ENLARGED:
        return []
    return [
        InputResolution().finding(
            f"Items of {size.side} px are enlarged {size.factor:.1f} times, to {size.resized} px.",
            severity="info",
            confidence=0.7,
            evidence={"own side": size.side, "resized to": size.resized},
            fix="headstart compare …  # it tries a smaller size",
        )
    ]


def _copies(dataset: Dataset) -> list[Finding]:
    if dataset.test_drawn:
        return []
    known = set(dataset.train.ids)
    same = [item for item in dataset.test.ids if item in known]
    if not same:
        return []
    return [
        TrainTestCopies().finding(
            f"{count(len(same), 'test item')} of {len(dataset.test):,} are also in the training"
            " split, byte for byte.",
            confidence=0.99,
            evidence={"copies": len(same), "items": len(dataset.test)},
            fix="headstart examine …  # lists near copies as well",
        )
    ]


def _value(value: Any) -> str:
    if isinstance(value, tuple):
        return ",".join(f"{each:g}" for each in value)
    return f"{value:g}" if isinstance(value, float) else str(value)


__all__ = ["audit_data"]
