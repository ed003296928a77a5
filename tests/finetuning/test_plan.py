"""The plan: what it says is measured, and making it changes nothing."""

from __future__ import annotations

import json

import pytest
import torch

from headstart.core.errors import ConfigError
from headstart.core.progress import SilentReporter
from headstart.core.records import to_plain
from headstart.finetuning import Classifier, Recipe, Stage
from headstart.modules.digests import digests
from tests.finetuning.conftest import Bench
from tests.finetuning.models import residual

RECIPE = Recipe(
    "r", (Stage("head"), Stage("two", ("last:2",), views=3), Stage("all", ("all",), norm="batch"))
)


def test_a_plan_says_what_trains_and_what_is_stored(bench: Bench) -> None:
    network = Classifier(residual(), 2)
    prepared = bench.plan(network, RECIPE, "auto")
    head, two, whole = prepared.plan.stages
    assert (head.trainable, head.parameters) == (18, sum(p.numel() for p in _live(network)))
    assert head.cut is not None
    assert head.cut.rows == head.cut.at.missing == 60
    assert head.cut.at.bytes == 60 * head.cut.at.bytes_per_item
    assert two.cut is not None
    assert two.cut.rows == 3 * 45 + 15
    # What comes before the first block that trains is the boundary; everything trains in the last.
    assert whole.cut is None
    assert "stem" in whole.no_cut or "frozen" in whole.no_cut or "moves" in whole.no_cut
    assert all(stage.seconds_per_epoch > 0 and stage.memory > 0 for stage in prepared.plan.stages)
    assert prepared.plan.seconds == pytest.approx(sum(s.seconds for s in prepared.plan.stages))
    assert json.loads(json.dumps(to_plain(prepared.plan)))["stages"][1]["name"] == "two"


def _live(network: Classifier) -> list[torch.Tensor]:
    named = dict(network.named_parameters())
    return [named[name] for name in network.live_tensors() if name in named]


def test_making_a_plan_changes_nothing(bench: Bench) -> None:
    network = Classifier(residual(dropout=0.5), 2)
    network.train()
    network.backbone.blocks[1].eval()
    modes = [part.training for part in network.modules()]
    before, state = digests(network), torch.get_rng_state()
    bench.plan(network, RECIPE, "auto")
    assert digests(network) == before
    assert torch.equal(torch.get_rng_state(), state)
    assert [part.training for part in network.modules()] == modes
    assert all(p.requires_grad and p.grad is None for p in network.parameters())
    assert not bench.root.exists()


def test_a_cache_that_is_asked_for_and_cannot_be_is_refused_for_all_stages(bench: Bench) -> None:
    recipe = Recipe(
        "r",
        (
            Stage("batch", ("head",), frozen="requires-grad-only"),
            Stage("fine", ("last:1",)),
            Stage("all", ("all",)),
        ),
    )
    with pytest.raises(ConfigError) as caught:
        bench.plan(Classifier(residual(), 2), recipe, "on")
    said = caught.value.faults
    assert len(said) == 2
    assert (
        "stage 'batch' cannot read stored rows: the frozen part normalises by the batch"
        in (said[0])
    )
    assert said[1].startswith("stage 'all' cannot read stored rows")


def test_what_an_unfinished_run_decided_is_decided_again(bench: Bench) -> None:
    network = Classifier(residual(), 2)
    recipe = Recipe("r", (Stage("s"),))
    places = bench.plan(network, recipe, "auto").plan.stages[0].cut
    assert places is not None
    for decided in (*(place.place for place in places.places), ""):
        prepared = bench.plan(network, recipe, "auto", decisions=(decided,))
        assert prepared.decisions == (decided,)
        assert (prepared.cuts[0] is not None) == bool(decided)


def test_rows_of_a_stage_whose_frozen_part_trained_before_are_not_counted_yet(
    bench: Bench,
) -> None:
    recipe = Recipe("r", (Stage("block", ("last:2",)), Stage("head", ("head",))))
    first, second = bench.plan(Classifier(residual(), 2), recipe).plan.stages
    assert first.cut is not None
    assert first.cut.at.missing == 60
    assert second.cut is not None
    assert second.cut.at.missing is None


def test_the_plan_shows_what_every_possible_cut_costs(bench: Bench) -> None:
    prepared = bench.plan(Classifier(residual(), 2), RECIPE, "auto")
    head, two, _ = prepared.plan.stages
    assert head.cut is not None
    assert two.cut is not None
    names = [place.place for place in head.cut.places]
    assert names == ["behind stem", *(f"behind blocks.{i}" for i in range(3))]
    assert [place.place for place in two.cut.places] == names[:2]
    for cut, stage in ((head.cut, head), (two.cut, two)):
        for place in cut.places:
            assert place.bytes == cut.rows * place.bytes_per_item
            assert place.seconds_storing > 0
            assert place.seconds_reading > 0
            assert place.seconds_recomputing > 0
            expected = place.seconds_storing + stage.epochs * place.seconds_per_epoch
            assert place.seconds == pytest.approx(expected)
        assert cut.seconds_images > 0
    # The last boundary of the head's stage is pooled: the fewest bytes behind the last block.
    assert head.cut.places[-1].bytes_per_item == 4 * 8
    assert head.cut.places[-1].seconds_recomputing > head.cut.places[0].seconds_recomputing


def test_rows_that_are_stored_at_a_candidate_count_as_free(bench: Bench) -> None:
    network, recipe = Classifier(residual(), 2), Recipe("r", (Stage("head"),))
    first = bench.plan(network, recipe, decisions=("behind blocks.1",))
    cut = first.cuts[0]
    assert cut is not None
    rows = bench.feeds(network).rows(cut, recipe.stages[0])
    for part in bench.parts:
        rows.fill(part, None, SilentReporter())
    again = bench.plan(network, recipe).plan.stages[0].cut
    assert again is not None
    stored = {place.place: place.missing for place in again.places}
    assert stored == {
        "behind stem": 60, "behind blocks.0": 60, "behind blocks.1": 0, "behind blocks.2": 60,
    }  # fmt: skip
    assert next(p for p in again.places if p.missing == 0).seconds_storing == 0


def test_every_candidate_trains_to_the_same_curve(bench: Bench) -> None:
    recipe = Recipe("r", (Stage("two", ("last:1",), epochs=2, batch_size=8),))
    curves = []
    for place in ("behind stem", "behind blocks.0", "behind blocks.1", ""):
        trained, _, prepared = bench.train(residual(), recipe, decisions=(place,))
        assert prepared.decisions == (place,)
        curves.append([record.train_loss for record in trained.records[1:]])
    for curve in curves[1:]:
        assert curve == pytest.approx(curves[0], abs=1e-6)
