"""Whole studies on planted networks and pictures."""

from __future__ import annotations

import contextlib
import dataclasses
import json

import numpy as np
import pytest
import torch

from headstart.core.errors import BackboneError, BadFilesError, ConfigError
from headstart.core.progress import SilentReporter
from headstart.data import load_data
from headstart.freezing import compare_digests, digests
from headstart.study import Configuration, parse

from .conftest import QUICK, RIGHT, picture_data, pictures, planted

SIX = ("train", "no_grad", "inference_mode", "eval", "eval+no_grad", "eval+inference_mode")


def kinds(comparison):
    return [finding.kind for finding in comparison.findings]


def found(comparison, kind):
    return next(finding for finding in comparison.findings if finding.kind == kind)


def numbers(outcome):
    return (outcome.accuracy, outcome.held_out, outcome.runs)


def test_the_five_of_the_question_and_the_naive_one(study):
    backbone = planted(dropout=0.2)
    before, state = digests(backbone.module), torch.get_rng_state()
    modes = [part.training for part in backbone.module.modules()]
    result = study(SIX, backbone=backbone)
    assert not compare_digests(before, digests(backbone.module))
    assert [part.training for part in backbone.module.modules()] == modes
    assert torch.equal(torch.get_rng_state(), state)
    by_name = {outcome.name: outcome for outcome in result.outcomes}
    for group in (SIX[:3], SIX[3:]):
        assert all(numbers(by_name[name]) == numbers(by_name[group[0]]) for name in group)
        assert set(by_name[group[0]].same_as) == set(group[1:])
    assert all(proof.exact for proof in result.evidence.proofs)
    assert len(result.evidence.proofs) == 2
    assert by_name["eval"].behaviour.peak_bytes > by_name["eval+no_grad"].behaviour.peak_bytes
    # Two distinct functions: one cached once for both repetitions, one loader walk a repetition.
    assert result.plan.items == 150 + 2 * 150
    assert result.plan.alone == 6 * 2 * 150
    assert {"rows depend on the batch", "dropout left on", "statistics move"} <= set(kinds(result))
    assert "drop (Dropout)" in found(result, "dropout left on").text
    assert "norm1" in found(result, "rows depend on the batch").text


def test_a_rerun_repeats_every_digit(study):
    names = "no_grad,reestimated,blend(0.5),class-ordered,dropout"
    first = study(names, backbone=planted(dropout=0.2))
    again = study(names, backbone=planted(dropout=0.2))
    assert json.dumps(first.document()) == json.dumps(again.document())
    assert first.cache.misses > 0
    assert again.cache.misses == 0


def test_right_inputs(study):
    result = study("no_grad,reestimated")
    assert "inputs: fit" in kinds(result)
    assert result.recommendation.configuration == "eval+inference_mode"
    assert result.evidence.suggested is None
    assert "backbone.eval()" in result.recommendation.code


@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ({"scale": 1.0, "mean": 0.0, "std": 1.0}, "inputs: unscaled", "Divided by 255"),
        ({"channels": "BGR"}, "inputs: channels", "RGB order"),
        ({"mean": 0.0, "std": 1.0}, "inputs: normalisation", "mean 0.5"),
    ],
)
def test_planted_faults_of_the_inputs(study, fault, kind, words):
    backbone = planted(dataclasses.replace(RIGHT, **fault))
    result = study("no_grad", backbone=backbone)
    finding = found(result, kind)
    assert words in finding.text
    assert "norm1" in finding.text
    assert finding.evidence["after"] < finding.evidence["before"]
    assert result.evidence.suggested == "inputs mended"
    assert result.recommendation.configuration == "inputs mended"
    assert "Fix the inputs" in result.recommendation.text
    mended = result.evidence.outcome("inputs mended")
    assert mended.case.function.inputs == RIGHT


def test_a_mended_configuration_that_is_there_is_not_added(study):
    backbone = planted(dataclasses.replace(RIGHT, channels="BGR"))
    result = study("swapped-channels", backbone=backbone)
    assert result.evidence.suggested == "swapped-channels"
    assert len(result.outcomes) == 2


def test_class_ordered_data_and_loader(study):
    x, y = pictures(60, seed=2)
    order = np.argsort(y, kind="stable")
    data = load_data({"train": pictures(90, seed=1), "test": (x[order], y[order])})
    result = study("no_grad,class-ordered", data=data)
    finding = found(result, "class-ordered batches")
    assert "Your test split is in class order" in finding.text
    shuffled, ordered = (result.evidence.outcome(n) for n in ("no_grad", "class-ordered"))
    assert ordered.accuracy.value < shuffled.accuracy.value - 0.1
    assert finding.level == "warning"
    # training rows of both come from the same walk
    assert result.plan.items == 150 + 2 * (90 + 60) + 2 * (18 + 60)


def test_dropout_alone(study):
    result = study("dropout", backbone=planted(dropout=0.5))
    finding = found(result, "dropout left on")
    assert "(eval+inference_mode)" in finding.text
    assert not result.evidence.outcome("dropout").cacheable
    assert "rows depend on the batch" not in kinds(result)


def test_nothing_to_choose_without_batch_norm(study):
    result = study((*SIX, "reestimated", "class-ordered"), backbone=planted(norm=False))
    assert "nothing to choose" in kinds(result)
    assert len({str(numbers(outcome)) for outcome in result.outcomes}) == 1
    assert result.plan.items == 150
    assert "all modes compute the same rows" in result.recommendation.text
    assert result.evidence.inputs is None
    unchecked = found(result, "inputs: not checked")
    assert "order of their channels could not be checked" in unchecked.text
    assert 0.2 < unchecked.evidence["deviation"] < 1.3
    assert result.evidence.drift == {}


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ({"scale": 1.0, "mean": 0.0, "std": 1.0}, "mean 1"),  # a hundred and something
        ({"scale": 1 / 255**2, "mean": 0.0, "std": 1.0}, "mean 0.00"),
    ],
)
def test_an_unusual_range_without_batch_norm(study, fault, words):
    backbone = planted(dataclasses.replace(RIGHT, **fault), norm=False)
    finding = found(study("eval", backbone=backbone, repeats=1), "inputs: unusual range")
    assert words in finding.text
    assert "scale=" in finding.fix


def test_own_configurations_cuts_and_heads(study):
    mine = Configuration("mine", statistics="blend", alpha=0.2)
    result = study(
        [mine, "layer=norm2", "layer=norm1+pooling=gem", "features+sgd", "features+adam"]
    )
    widths = {outcome.name: outcome.spread.width for outcome in result.outcomes}
    assert widths["layer=norm2"] == 16
    assert widths["layer=norm1+pooling=gem"] == 12
    assert widths["mine"] == 24
    sgd, adam = (result.evidence.outcome(f"features+{name}") for name in ("sgd", "adam"))
    assert sgd.head != adam.head
    assert "train_loss" in sgd.runs[0].chosen
    # three cuts of one function and two heads: one pass
    rows = [p for p in result.plan.passes if p.what.function.statistics == "running"]
    assert [p.items for p in rows] == [150]


def test_recompute_moves_statistics_and_tests_with_them(study):
    result = study("recompute,no_grad", recompute_passes=3, repeats=1)
    recompute = result.evidence.outcome("recompute")
    assert result.plan.items == 150 + 150 + 3 * 90 + 18 + 60
    assert recompute.accuracy.value > 0.5
    assert not recompute.cacheable


def test_redrawn_splits(study):
    result = study("no_grad,reestimated", data=load_data(pictures(120)))
    assert result.evidence.redrawn
    assert any("draws another" in note for note in result.notes)
    splits = {run.seeds.split for run in result.outcomes[0].runs}
    assert len(splits) == 2


class Interrupting(SilentReporter):
    """Raises KeyboardInterrupt after so many images."""

    def __init__(self, after: int) -> None:
        self.left = after

    @contextlib.contextmanager
    def task(self, name, total, unit):
        class Counting:
            def advance(_self, count: int = 1) -> None:
                if unit in ("images", "heads") and name in ("forward passes", "heads"):
                    self.left -= count
                    if self.left < 0:
                        raise KeyboardInterrupt

        yield Counting()


@pytest.mark.parametrize("after", [200, 452])
def test_an_interrupted_study_goes_on(study, cache, after):
    whole = study("no_grad,reestimated+unscaled")
    cache.store.gc(max_size=0)
    assert not (cache.location / "results" / "study").exists()
    with pytest.raises(KeyboardInterrupt):
        study("no_grad,reestimated+unscaled", reporter=Interrupting(after))
    resumed = study("no_grad,reestimated+unscaled")
    assert json.dumps(resumed.document()) == json.dumps(whole.document())
    assert resumed.resumed > 0 or resumed.cache.misses < whole.cache.misses
    assert not (cache.location / "results" / "study").exists()


def test_faults_are_told_before_any_work(study, cache):
    with pytest.raises(ConfigError, match=r"evil.*eval\+train"):
        study("evil,eval+train")
    with pytest.raises(BackboneError, match="nearest"):
        study("layer=norm22")
    with pytest.raises(ConfigError, match="batch of one"):
        study("eval", extraction=dataclasses.replace(QUICK, batch_size=1))
    assert not cache.location.exists()


def test_unreadable_items_are_refused_or_left_out(study, tmp_path):
    from PIL import Image

    x, y = pictures(40, seed=3)
    for part, rows in (("train", range(28)), ("test", range(28, 40))):
        for i in rows:
            folder = tmp_path / "data" / part / f"class{y[i]}"
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray(x[i]).save(folder / f"{i}.png")
    (tmp_path / "data" / "train" / "class0" / "broken.png").write_bytes(b"no image")
    data = load_data(tmp_path / "data")
    with pytest.raises(BadFilesError, match=r"broken\.png"):
        study("no_grad", data=data)
    assert study("no_grad", data=data, on_bad="skip").evidence.n_train == 28


def test_the_reference_can_be_another(study):
    result = study("no_grad", reference="reestimated")
    assert [outcome.name for outcome in result.outcomes] == ["reestimated", "no_grad"]
    assert result.evidence.reference_outcome.difference is None


def test_parse_is_pure():
    assert parse("eval") == parse("eval")
    assert picture_data().classes == ("0", "1", "2")


def test_a_cut_behind_that_of_the_backbone(study):
    names = "reestimated+layer=norm3,reestimated+no_grad+layer=norm3,no_grad+layer=norm2"
    result = study(names, backbone=planted().at("norm1"), repeats=1)
    assert result.evidence.outcome("reestimated+layer=norm3").spread.width == 24
    assert len(result.evidence.drift["inputs as given"]) == 3
    assert result.evidence.proofs[0].exact


def test_maps_are_no_rows(study):
    with pytest.raises(ConfigError, match="3 dimensions"):
        study("layer=norm2+pooling=none")


def test_a_reference_that_depends_on_the_batch_is_not_recommended(study):
    result = study("eval", reference="no_grad")
    assert result.recommendation.configuration == "eval"
