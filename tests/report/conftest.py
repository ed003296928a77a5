"""Evaluations of any number of classes, counted from seeded predictions."""

from __future__ import annotations

import io
import math
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from headstart.commands.run_page import Mistake, fit_page
from headstart.core.records import (
    Baseline,
    CacheUse,
    ClassScores,
    Curve,
    Evaluation,
    Excerpt,
    Interval,
    ReliabilityBin,
    Score,
)
from headstart.report import Page

MakeEvaluation = Callable[..., Evaluation]

HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "</text></svg><script>alert(2)</script>",
    "</style><script>alert(3)</script>",
    "{{ 7 * 7 }}{% for x in y %}",
    "$x_1$ & $\\frac{1}{$",
    "a\nnew\tline",
    "\x1b[31mred\x00",
    "\u202egnp.exe",
    "file-\udcff.png",
    "نملة كبيرة",
    "蚂蚁和蜜蜂的照片",
    "a class name that is long, " * 8,
    "",
)


@pytest.fixture
def make_evaluation() -> MakeEvaluation:
    def make(classes: tuple[str, ...], n: int = 300, empty: tuple[int, ...] = ()) -> Evaluation:
        generator = np.random.default_rng(0)
        count = len(classes)
        allowed = [index for index in range(count) if index not in empty]
        true = generator.choice(allowed, size=n)
        guess = generator.integers(count, size=n)
        predicted = np.where(generator.random(n) < 0.8, true, guess)
        labels = list(range(count))
        table = precision_recall_fscore_support(
            true, predicted, labels=labels, zero_division=math.nan
        )
        rows = tuple(
            ClassScores(name, float(p), float(r), float(f), int(s))
            for name, p, r, f, s in zip(classes, *table, strict=True)
        )
        accuracy = float((true == predicted).mean())
        score = Score(accuracy, Interval(accuracy - 0.04, accuracy + 0.04, 0.95, "wilson", n))
        bins = tuple(
            ReliabilityBin(i / 5, (i + 1) / 5, i / 5 + 0.1, i / 5 + 0.07, 20 * i + 1)
            for i in range(5)
        )
        confusion = confusion_matrix(true, predicted, labels=labels)
        return Evaluation(
            n=n,
            classes=classes,
            accuracy=score,
            balanced_accuracy=Score(accuracy, None),
            macro_f1=Score(accuracy - 0.01, None),
            log_loss=0.5,
            ece=0.03,
            per_class=rows,
            confusion=tuple(tuple(int(cell) for cell in row) for row in confusion),
            reliability=bins,
        )

    return make


@pytest.fixture
def curves() -> tuple[Curve, ...]:
    epochs = tuple(float(epoch) for epoch in range(1, 31))
    return (
        Curve("training loss", epochs, tuple(1 / e for e in epochs), "epoch", "loss, nats"),
        Curve("validation loss", epochs, tuple(1.2 / e for e in epochs), "epoch", "loss, nats"),
        Curve(
            "cross-validated accuracy",
            (1e-3, 1e-2, 1e-1, 1.0),
            (0.7, 0.8, 0.85, math.nan),
            "C",
            "accuracy",
            low=(0.65, 0.75, 0.8, math.nan),
            high=(0.75, 0.85, 0.9, math.nan),
            log_x=True,
            chosen=0.1,
        ),
    )


@pytest.fixture
def thumbnail() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (24, 18), (200, 120, 40)).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.fixture
def make_page(
    make_evaluation: MakeEvaluation, curves: tuple[Curve, ...], thumbnail: bytes
) -> Callable[..., Page]:
    """A page whose every text is one of ``names``, in every place a user's text can reach."""

    def make(names: tuple[str, ...]) -> Page:
        evaluation = make_evaluation(names)
        return fit_page(
            evaluation,
            title=names[0],
            subtitle=names[1],
            baselines=(Baseline(names[0], names[1], Score(0.4, None)),),
            curves=(*curves, Curve(names[0], (1.0,), (0.5,), names[1], names[0])),
            configuration={names[0]: {names[1]: list(names)}},
            environment={"python": names[0]},
            timing={names[0]: 3.2, "fit": 0.2},
            images_per_second=120.0,
            cache=CacheUse(10, 2),
            notes=names,
            warnings=names,
            mistakes=tuple(Mistake(n, n, names[0], 0.9, Excerpt(thumbnail)) for n in names),
            commands=names,
            head_name=names[0],
        )

    return make
