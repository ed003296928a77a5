"""Wording: figures, durations and names, in the terminal and in a page."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from headstart.commands.run_page import fit_page
from headstart.core.records import Baseline, Interval, Score
from headstart.report import evaluation_table, format_score
from headstart.report.text import class_cells, confused_pairs, flatten, scores
from tests.report.conftest import MakeEvaluation


@pytest.mark.parametrize(
    ("score", "words"),
    [
        (
            Score(0.941, Interval(0.889, 0.969, 0.95, "wilson", 153)),
            "94.1 % (95 % interval 88.9–96.9, Wilson, n = 153)",
        ),
        (
            Score(0.5, Interval(0.4, 0.6, 0.9, "score", 12000)),
            "50.0 % (90 % interval 40.0–60.0, score, n = 12,000)",
        ),
        (
            Score(0.5, Interval(0.4, 0.6, 0.95, "t", 5)),
            "50.0 % (95 % interval 40.0–60.0, t over 5 repetitions)",
        ),
        (
            Score(1.0, Interval(0.368, 1.0, 0.95, "exact", 3)),
            "only 3 items: 100.0 % (95 % interval 36.8–100.0, exact, n = 3)",
        ),
        (
            Score(0.5, Interval(0.4, 0.6, 0.95, "t", 5, items=7)),
            "only 7 items: 50.0 % (95 % interval 40.0–60.0, t over 5 repetitions)",
        ),
        (Score(1.0, None), "100.0 %"),
        (Score(math.nan, None), "not defined"),
    ],
)
def test_a_score_says_what_it_rests_on(score: Score, words: str) -> None:
    assert format_score(score) == words


def test_nested_settings_become_dotted_names() -> None:
    assert flatten({"head": {"name": "linear", "C": 0.1}, "sizes": [32, 64], "seed": None,
                    "bf16": False, "extra": {}}) == [
        ("head.name", "linear"), ("head.C", "0.1"), ("sizes", "32, 64"), ("seed", "–"),
        ("bf16", "no"), ("extra", "–"),
    ]  # fmt: skip


def test_confused_pairs_are_counted_from_the_matrix(make_evaluation: MakeEvaluation) -> None:
    evaluation = make_evaluation(("a", "b", "c"), n=500)
    pairs = confused_pairs(evaluation)
    wrong = sum(sum(row) for row in evaluation.confusion) - sum(
        evaluation.confusion[index][index] for index in range(3)
    )
    assert sum(count for _, _, count, _ in pairs) == wrong
    counts = [count for _, _, count, _ in pairs]
    assert counts == sorted(counts, reverse=True)
    true, predicted, count, items = pairs[0]
    row, column = evaluation.classes.index(true), evaluation.classes.index(predicted)
    assert evaluation.confusion[row][column] == count
    assert items == sum(evaluation.confusion[row])


def test_few_items_say_so_first_and_no_items_have_no_recall(
    make_evaluation: MakeEvaluation,
) -> None:
    evaluation = make_evaluation(("a", "b", "c"), n=9, empty=(1,))
    worded = dict(scores(evaluation))
    for name in ("accuracy", "macro F1", "log loss", "calibration error"):
        assert worded[name].startswith("only 9 items: ")
    assert worded["balanced accuracy"].endswith(", over the 2 of 3 classes that have items")
    items, _, recall, _ = class_cells(evaluation.per_class[1])
    assert (items, recall) == ("0", "–")
    few = [row for row in evaluation.per_class if row.support]
    assert all(class_cells(row)[0] == f"only {row.support}" for row in few)
    lines = printed(evaluation_table(evaluation)).splitlines()
    assert any("class" in line and line.index("items") < line.index("recall") for line in lines
               if "recall" in line)  # fmt: skip


def printed(renderable: object) -> str:
    console = Console(file=io.StringIO(), width=110, force_terminal=True, color_system=None)
    console.print(renderable)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_terminal_shows_twenty_classes_and_says_how_many_more(
    make_evaluation: MakeEvaluation,
) -> None:
    evaluation = make_evaluation(tuple(f"class {index:02d}" for index in range(25)))
    baseline = Baseline("majority class", "", Score(0.04, None))
    shown = printed(evaluation_table(evaluation, baselines=(baseline,)))
    assert "class 19" in shown
    assert "class 20" not in shown
    assert "and 5 more" in shown
    assert "baseline: majority class" in shown
    assert "Wilson, n = 300" in shown


def test_class_names_are_neither_markup_nor_escapes_in_the_terminal(
    make_evaluation: MakeEvaluation,
) -> None:
    shown = printed(evaluation_table(make_evaluation(("[red]ants[/red]", "\x1b[31mbees"))))
    assert "[red]ants[/red]" in shown
    assert "\x1b[31m" not in shown


def test_a_page_of_one_evaluation_alone_has_only_what_there_is(
    make_evaluation: MakeEvaluation,
) -> None:
    page = fit_page(make_evaluation(("ants", "bees")), title="data")
    titles = [section.title for section in page.sections]
    assert titles == ["Result", "By class", "Mistakes", "Calibration"]
    assert [headline.label for headline in page.headlines] == ["Test accuracy", "Test items"]


def test_the_gain_is_over_the_best_baseline(make_evaluation: MakeEvaluation) -> None:
    evaluation = make_evaluation(("ants", "bees"))
    baselines = (
        Baseline("majority", "", Score(0.5, None)),
        Baseline("pixels", "", Score(evaluation.accuracy.value - 0.123, None)),
        Baseline("failed", "", Score(math.nan, None)),
    )
    page = fit_page(evaluation, title="data", baselines=baselines)
    gain = next(headline for headline in page.headlines if "baseline" in headline.label)
    assert gain.value == "+12.3"
    assert "pixels" in gain.detail
