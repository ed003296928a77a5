"""The plan: what it says is measured, and making it changes nothing."""

from __future__ import annotations

import json

import pytest
import torch

from headstart.errors import ConfigError
from headstart.freezing.digests import digests
from headstart.records import to_plain
from headstart.training import Classifier, Recipe, Stage
from tests.training.conftest import Bench
from tests.training.models import residual

RECIPE = Recipe(
    "r", (Stage("head"), Stage("two", ("last:2",), views=3), Stage("all", ("all",), norm="batch"))
)


def test_a_plan_says_what_trains_and_what_is_stored(bench: Bench) -> None:
    network = Classifier(residual(), 2)
    prepared = bench.plan(network, RECIPE, "auto")
    head, two, whole = prepared.plan.stages
    assert (head.trainable, head.parameters) == (18, sum(p.numel() for p in _live(network)))
    assert head.cut is not None
    assert head.cut.rows == head.cut.missing == 60
    assert head.cut.bytes == 60 * head.cut.bytes_per_item
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
    for decided in (True, False):
        prepared = bench.plan(network, recipe, "auto", decisions=(decided,))
        assert (prepared.cuts[0] is not None) == decided


def test_rows_of_a_stage_whose_frozen_part_trained_before_are_not_counted_yet(
    bench: Bench,
) -> None:
    recipe = Recipe("r", (Stage("block", ("last:2",)), Stage("head", ("head",))))
    first, second = bench.plan(Classifier(residual(), 2), recipe).plan.stages
    assert first.cut is not None
    assert first.cut.missing == 60
    assert second.cut is not None
    assert second.cut.missing is None
