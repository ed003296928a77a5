from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from headstart.core.arguments import Arguments
from headstart.extraction import Extraction
from headstart.freezing import compare_digests, digests, freeze
from headstart.study import memory, network, parse, probing
from headstart.study.functions import cut_of, function_of

from .conftest import RIGHT, pictures, planted

CUT = (None, "none")
SETTINGS = Extraction(batch_size=16, device="cpu")


def pixels(count: int = 32) -> torch.Tensor:
    return torch.from_numpy(pictures(count, seed=5)[0]).permute(0, 3, 1, 2)


def given(count):
    return RIGHT.finish(Arguments((pixels(count),)))


def facts_of(backbone):
    return probing.find_facts(backbone, given(8))


def changes_of(name, **kind):
    backbone = planted(**kind)
    function = function_of(parse(name), backbone, facts_of(backbone), 16)
    ready = network.prepared(backbone, function)
    return probing.changes(ready, CUT, function, given(32), SETTINGS)


def test_facts():
    facts = facts_of(planted(dropout=0.2))
    assert facts.norms == ("norm1", "norm2", "norm3")
    assert facts.chance == (("drop", "Dropout"),)
    assert facts.random
    assert not facts_of(planted(dropout=0.0)).random
    assert facts_of(planted(norm=False)).norms == ()


def test_functional_dropout_is_found_by_running():
    class Hidden(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, x):
            return torch.nn.functional.dropout(self.inner(x), 0.5, self.training)

    from headstart.backbones import load_backbone

    backbone = load_backbone(Hidden(planted().module), inputs=RIGHT)
    facts = facts_of(backbone)
    assert facts.random
    assert facts.chance == ()


@pytest.mark.parametrize(
    ("name", "batch", "chance"),
    [
        ("eval", False, False),
        ("train", True, True),
        ("no-dropout", True, False),
        ("dropout", False, True),
    ],
)
def test_what_rows_depend_on(name, batch, chance):
    found = changes_of(name, dropout=0.2)
    assert (found.in_another_batch > 0.01) == batch
    assert (found.on_second_pass > 0.01) == chance
    assert batch or found.in_another_batch < 1e-5
    assert chance or found.on_second_pass == 0.0


def test_without_norm_and_dropout_all_modes_are_one_function():
    backbone = planted(norm=False)
    facts = facts_of(backbone)
    names = ("train", "no_grad", "eval", "reestimated", "class-ordered", "recompute", "dropout")
    functions = {
        dataclasses.replace(function_of(parse(n), backbone, facts, 16), autograd="inference")
        for n in names
    }
    assert len(functions) == 1
    assert cut_of(parse("layer=conv2"), backbone) == ("conv2", "avg")


def test_the_ends_of_a_blend_are_what_they_blend():
    backbone = planted()
    facts = facts_of(backbone)
    for name, end in (("blend(0)", "running"), ("blend(1)", "reestimated")):
        assert function_of(parse(name), backbone, facts, 16).statistics == end


def test_autograd_changes_memory_and_not_one_bit():
    backbone = planted(dropout=0.2)
    ready = network.prepared(
        backbone, function_of(parse("train"), backbone, facts_of(backbone), 16)
    )
    batches = [given(16), given(32)[16:]]
    modes = ["grad", "no_grad", "inference"]
    assert probing.equality(ready, [CUT], modes, batches, SETTINGS) == (True, 0.0)
    peak = {m: memory.peak_bytes([ready], batches[0], m, SETTINGS) for m in modes}
    assert peak["no_grad"] == pytest.approx(peak["inference"], rel=0.01)
    assert peak["grad"] > 1.5 * peak["inference"]
    # the largest activation of 16 images is (12, 32, 32) float32, and an operation has two of them
    assert peak["inference"] >= 2 * 16 * 12 * 32 * 32 * 4


def test_training_mode_moves_statistics_of_a_copy_only():
    backbone = planted()
    before, modes = digests(backbone.module), [m.training for m in backbone.module.modules()]
    state = torch.get_rng_state()
    batches = [given(16).map(lambda x: x * 2)]
    moved = probing.moved_statistics(backbone, ["norm1", "norm2"], batches)
    assert min(moved.values()) > 0.001
    assert not compare_digests(before, digests(backbone.module))
    assert [m.training for m in backbone.module.modules()] == modes
    assert torch.equal(state, torch.get_rng_state())


def test_a_contract_on_the_users_module_is_no_obstacle():
    backbone = planted(dropout=0.2)
    handle = freeze(backbone.module)
    function = function_of(parse("train"), backbone, facts_of(backbone), 16)
    ready = network.prepared(backbone, function)
    found = probing.changes(ready, CUT, function, given(32), SETTINGS)
    assert found.in_another_batch > 0.01
    assert handle.check().holds


def test_spread_of_known_rows():
    rng = np.random.default_rng(0)
    rows = np.zeros((4000, 6), np.float32)
    rows[:, :3] = rng.normal(0, 2, (4000, 3))
    found = probing.spread_of(rows)
    assert (found.width, found.constant) == (6, 3)
    assert found.dimension == pytest.approx(3, abs=0.05)
    assert found.scale == pytest.approx(2 / np.sqrt(2), rel=0.05)
    assert probing.spread_of(rows[:4]).dimension <= 3.0 + 1e-6


def test_restated_statistics_make_the_drift_vanish_up_to_the_cut():
    from headstart.study.inputs import drift_up_to

    base = planted().at("norm2")
    batches = [given(16), given(32)[16:]]
    restated, done = network.restate(base, ["norm1", "norm2"], batches)
    assert [layer.name for layer in done.layers] == ["norm1", "norm2"]
    assert all(d.symmetric_kl < 1e-6 for d in drift_up_to(restated, ["norm1", "norm2"], batches))
    assert any(d.symmetric_kl > 1e-4 for d in drift_up_to(base, ["norm1", "norm2"], batches))
