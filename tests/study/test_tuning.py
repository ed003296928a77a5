"""Fine-tuning beside frozen backbones: the runs themselves, interruption, what is said of them."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from headstart.backbones import load_backbone
from headstart.commands.cli import app
from headstart.commands.compare.figures import mean_curves
from headstart.commands.compare.page import comparison_page
from headstart.commands.compare.tables import comparison_rows, finding_text, training_rows
from headstart.commands.compare.tuning import FineTuner
from headstart.core.errors import ConfigError, DataError
from headstart.core.progress import SilentReporter
from headstart.core.records import Curve, Interval
from headstart.data import load_data
from headstart.evaluation import Difference
from headstart.freezing import compare_digests, digests
from headstart.report.page import render_page
from headstart.study import Configuration, run_study
from headstart.study.findings import find_causes
from headstart.study.recommendation import recommend

from .conftest import QUICK, RIGHT, picture_data, pictures, planted, quick

FOUR = "features+sgd,features+adam,finetune+sgd,finetune+adam"


class Listening(SilentReporter):
    """Keeps notes and what is counted; raises KeyboardInterrupt at a note that contains a text."""

    def __init__(self, stop_at: str | None = None) -> None:
        self.stop_at, self.notes, self.tasks = stop_at, [], {}

    def note(self, text):
        self.notes.append(text)
        if self.stop_at is not None and self.stop_at in text:
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def task(self, name, total, unit):
        self.tasks[name] = [0, total]

        class Counting:
            def advance(_self, count=1):
                self.tasks[name][0] += count

        yield Counting()


def tuned_study(cache, names, *, backbone=None, data=None, reporter=None, **settings):
    return run_study(
        data or picture_data(),
        backbone or planted(),
        quick(names, **{"epochs": 2, **settings}),
        extraction=QUICK,
        cache=cache,
        reporter=reporter,
        tuner=FineTuner(QUICK),
    )


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    """The four runs of the question, on a network with dropout; and what was told."""
    from headstart.cache import FeatureCache

    backbone, reporter = planted(dropout=0.2), Listening()
    before, state = digests(backbone.module), torch.get_rng_state()
    modes = [part.training for part in backbone.module.modules()]
    cache = FeatureCache(tmp_path_factory.mktemp("four") / "cache")
    result = tuned_study(cache, FOUR, backbone=backbone, reporter=reporter)
    assert not compare_digests(before, digests(backbone.module))
    assert [part.training for part in backbone.module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    assert not any(parameter.grad is not None for parameter in backbone.module.parameters())
    return result, reporter, cache


def test_the_four_runs_stand_in_one_table(four):
    result, _, _ = four
    names = ["eval+inference_mode", *FOUR.split(",")]
    assert [outcome.name for outcome in result.outcomes] == names
    assert [outcome.name for outcome in result.evidence.tuned] == names[3:]
    for outcome in result.evidence.tuned:
        assert outcome.difference is not None
        assert outcome.difference.interval is not None
        assert outcome.difference.p_holm >= outcome.difference.p
        assert outcome.held_out_difference is None
    header, rows = comparison_rows(result)
    assert all(len(row) == len(header) for row in rows)
    assert rows[4][5:] == ("–",) * 4
    # adam at 1e-3 moves further than sgd in so few steps, and both from one start a repetition
    curves = [[run.curves for run in outcome.runs] for outcome in result.evidence.tuned]
    assert curves[0] != curves[1]
    start = [{c.name: c.y[0] for c in runs[0]}["validation loss"] for runs in curves]
    assert start[0] == start[1]
    assert [o.runs[0].seeds for o in result.outcomes] == [result.outcomes[0].runs[0].seeds] * 5
    assert result.outcomes[3].runs[0].seeds.head != result.outcomes[3].runs[1].seeds.head


def test_best_validation_accuracy_and_curves_of_every_run(four):
    result, _, _ = four
    for outcome in result.outcomes[1:]:
        for run in outcome.runs:
            by_name = {curve.name: curve for curve in run.curves}
            assert {"train loss", "validation loss", "validation accuracy"} <= set(by_name)
            accuracies = by_name["validation accuracy"]
            assert max(accuracies.y) == pytest.approx(run.held_out, abs=1e-6)
    for outcome in result.evidence.tuned:
        assert [len(c.x) for c in outcome.runs[0].curves] == [2, 2, 3, 3]
        assert outcome.runs[0].chosen["epochs"] == 2
    rows = {row[0]: row for row in training_rows(result)}
    assert rows["eval+inference_mode"][4] == "1×"
    assert rows["finetune+adam"][3].endswith("s")
    page = render_page(comparison_page(result, title="four"))
    assert page.count("loss and accuracy by epoch") >= 4
    assert "<script" not in page


def test_plan_and_progress_tell_how_long_it_is(four):
    result, reporter, _ = four
    tunings = result.plan.tunings
    assert [(t.recipe, t.runs, t.epochs, t.items) for t in tunings] == [
        ("sgd-step", 2, 2, 72), ("adam-step", 2, 2, 72),
    ]  # fmt: skip
    plan = next(note for note in reporter.notes if note.startswith("plan: "))
    assert "2 runs of up to 2 epochs of 72 images" in plan
    assert "long part: up to 576 images" in plan
    assert reporter.tasks["fine-tuning"] == [576, 576]
    epochs = [note for note in reporter.notes if "epoch 2 of 2" in note]
    assert len(epochs) == 4
    assert epochs[0].startswith("finetune+sgd, repetition 1 of 2: ")


def test_times_stand_beside_what_every_rerun_repeats(four):
    result, _, _ = four
    text = json.dumps(result.document())
    assert "seconds" not in text
    assert set(result.timing()["seconds_per_run"]) == {o.name for o in result.outcomes}
    assert result.document()["configurations"][4]["recipe"]["name"] == "adam-step"


def test_the_recommendation_is_that_of_the_frozen_ones(four):
    result, _, cache = four
    alone = tuned_study(cache, "features+sgd,features+adam", backbone=planted(dropout=0.2))
    assert result.recommendation.configuration == alone.recommendation.configuration
    assert result.recommendation.text == alone.recommendation.text
    assert "not a candidate" in " ".join(result.recommendation.evidence)
    for one, other in zip(result.evidence.frozen, alone.evidence.frozen, strict=True):
        assert one.held_out_difference == other.held_out_difference
        assert one.runs == other.runs


@pytest.mark.parametrize(
    ("value", "low", "high", "p", "words", "level"),
    [
        (0.031, 0.010, 0.052, 0.01, "gains 3.1 points (1.0 to 5.2) over eval", "advice"),
        (-0.031, -0.052, -0.01, 0.01, "loses 3.1 points (1.0 to 5.2) against eval", "note"),
        (0.031, -0.01, 0.072, 0.3, "not distinguishable from eval+inference_mode: +3.1", "note"),
    ],
)
def test_what_it_gains_and_what_it_costs(four, value, low, high, p, words, level):
    result, _, _ = four
    gap = Difference(value, Interval(low, high, 0.95, "t", 2), p, p)
    outcomes = tuple(
        dataclasses.replace(o, difference=gap) if o.name == "finetune+adam" else o
        for o in result.outcomes
    )
    evidence = dataclasses.replace(result.evidence, outcomes=outcomes)
    findings = find_causes(evidence)
    (found,) = [f for f in findings if f.evidence.get("configuration") == "finetune+adam"]
    assert words in found.text
    assert found.level == level
    assert recommend(evidence).configuration == result.recommendation.configuration
    timed = dataclasses.replace(
        result, seconds_per_run={"eval+inference_mode": 3.0, "finetune+adam": 120.0}
    )
    assert "It takes 40× the time: 2 min" in finding_text(timed, found)
    assert finding_text(dataclasses.replace(result, seconds_per_run={}), found) == found.text


def test_an_interrupted_study_goes_on_within_a_run(cache):
    names = "finetune+sgd,finetune:head.toml+layer=norm2"
    recipe = cache.location.parent / "head.toml"
    recipe.write_text('name = "mine"\n[[stage]]\nname = "head"\ntrain = ["head"]\npatience = 1\n')
    names = names.replace("head.toml", str(recipe))
    data = load_data(pictures(80))  # no test split of its own: every repetition draws another
    whole = tuned_study(cache, names, data=data)
    listening = Listening("finetune+sgd, repetition 2 of 2: all, epoch 1 of 2")
    with pytest.raises(KeyboardInterrupt):
        tuned_study(cache, names, data=data, reporter=listening)
    assert (
        list((cache.location / "results" / "study").glob("*.run/run/checkpoint/progress.json"))
        == []
    )
    with pytest.raises(KeyboardInterrupt):
        tuned_study(
            cache, names, data=data, reporter=Listening("repetition 2 of 2: all, epoch 2 of 2")
        )
    assert len(list((cache.location / "results" / "study").glob("*.run"))) == 1
    again = Listening()
    resumed = tuned_study(cache, names, data=data, reporter=again)
    assert json.dumps(resumed.document()) == json.dumps(whole.document())
    # Two runs are taken up as they were; of the one that was interrupted the first epoch is.
    unfinished = [n for n in again.notes if n.startswith("finetune+sgd, repetition 2 of 2: all, ")]
    assert [n.split(", ")[2][:7] for n in unfinished] == ["epoch 2"]
    assert not any(note.startswith("finetune+sgd, repetition 1") for note in again.notes)
    assert not (cache.location / "results" / "study").exists()
    assert whole.evidence.redrawn
    assert whole.outcomes[2].case.tuning.recipe["stage"][0]["epochs"] == 2


def test_inputs_of_the_configuration_reach_the_training(cache):
    result = tuned_study(cache, "finetune+adam,finetune+adam+unscaled", repeats=1, epochs=1)
    one, other = ({c.name: c.y for c in o.runs[0].curves} for o in result.evidence.tuned)
    assert one["validation loss"][0] != other["validation loss"][0]
    assert result.evidence.tuned[1].case.function.inputs.scale == 1.0
    assert result.plan.tunings[0].configurations == ("finetune+adam",)


def test_equal_recipes_share_their_runs(cache):
    result = tuned_study(cache, "finetune+adam,finetune:adam-step", repeats=1, epochs=1)
    one, other = result.evidence.tuned
    assert one.same_as == ("finetune:adam-step",)
    assert one.runs == other.runs
    assert len(result.plan.tunings) == 1
    assert sum(finding.kind == "fine-tuning" for finding in result.findings) == 1


def test_faults_of_recipes_are_told_before_any_work(cache):
    with pytest.raises(ConfigError) as caught:
        tuned_study(cache, "finetune:lp-fd,finetune:nowhere.toml,finetune+sgd")
    assert "no recipe named 'lp-fd'" in str(caught.value)
    assert "nowhere.toml' cannot be read" in str(caught.value)
    with pytest.raises(ConfigError, match="reference 'finetune\\+sgd' fine-tunes"):
        tuned_study(cache, "eval", reference="finetune+sgd")
    with pytest.raises(ConfigError, match="nothing that trains"):
        run_study(picture_data(), planted(), quick("finetune+sgd"), cache=cache)
    with pytest.raises(ConfigError, match="epochs must be at least 1"):
        quick(epochs=0)
    assert not cache.location.exists()
    x, y = pictures(12)
    lonely = load_data({"train": (x[:2], y[:2]), "test": (x, y)})
    with pytest.raises(DataError, match="held out to choose the best epoch"):
        tuned_study(cache, "finetune+sgd", data=lonely, repeats=1)


def test_without_batch_norm_and_without_other_measures(cache):
    result = tuned_study(cache, "finetune+sgd", backbone=planted(norm=False), repeats=1, epochs=1)
    assert "nothing to choose" in {finding.kind for finding in result.findings}
    assert result.evidence.tuned[0].runs[0].n_test == 60


def test_a_configuration_object_takes_a_recipe(cache):
    name = "<b>mine</b>"
    mine = Configuration(name, recipe="bn-affine", preprocessing={"size": (16, 16)})
    result = tuned_study(cache, [mine], repeats=1, epochs=1)
    assert result.evidence.outcome(name) is result.evidence.tuned[0]
    assert "<b>mine" not in render_page(comparison_page(result, title="mine"))
    assert result.evidence.tuned[0].tuning.recipe["start"] == "probe"
    assert result.evidence.tuned[0].case.function.inputs.size == (16, 16)
    assert RIGHT.size == (32, 32)


def test_mean_curves_of_runs_of_unequal_length():
    def curve(*y):
        return Curve("loss", tuple(map(float, range(len(y)))), y, "epoch", "nats", chosen=1.0)

    (mean,) = mean_curves([[curve(4.0, 2.0, 1.0)], [curve(2.0, 1.0)]])
    assert (mean.x, mean.y) == ((0.0, 1.0, 2.0), (3.0, 1.5, 1.0))
    assert (mean.low, mean.high) == ((2.0, 1.0, 1.0), (4.0, 2.0, 1.0))
    (alone,) = mean_curves([[curve(4.0, np.nan, 1.0)]])
    assert (alone.x, alone.chosen, alone.low) == ((0.0, 2.0), 1.0, ())


def test_the_command_line(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = digests(load_backbone("headstart/glyphs").module)
    words = ["compare", "digits", "--configs", "features+adam,finetune+adam", "--epochs", "1"]
    words += ["--repeats", "1", "--train-items", "120", "--test-items", "60"]
    words += ["--cache", "cache", "--out", "run"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    for text in ("finetune+adam", "best validation", "× reference", "It takes", "not a candidate"):
        assert text in done.output
    document = json.loads((tmp_path / "run" / "comparison.json").read_text())
    assert [c["name"] for c in document["configurations"]][-1] == "finetune+adam"
    assert document["plan"]["fine_tuning"][0]["epochs"] == 1
    described = json.loads((tmp_path / "run" / "run.json").read_text())
    assert described["seconds_per_run"]["finetune+adam"] > 0
    assert "finetune+adam: loss and accuracy by epoch" in (tmp_path / "run/report.html").read_text()
    assert not (tmp_path / "cache" / "results" / "study").exists()
    assert digests(load_backbone("headstart/glyphs").module) == before
