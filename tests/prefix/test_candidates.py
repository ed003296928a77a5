"""The possible cuts of a network: where they are, what they cost, and that each of them holds."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from headstart.prefix import Candidate, Cut, NoCut, candidates, find_cut, record
from headstart.prefix.candidates import MOST


class Chain(nn.Module):
    """Blocks that halve the image, with a skip from the first to the head."""

    def __init__(self, blocks: int = 4, *, skip: bool = False, padded: bool = False) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(4 if i else 3, 4, 3, padding=1), nn.ReLU())
            for i in range(blocks)
        )
        self.skip, self.padded = skip, padded
        self.last = nn.Conv2d(4, 4, 3, padding=0 if padded else 1)
        self.head = nn.Linear(8 if skip else 4, 2)

    def forward(self, x: Tensor) -> Tensor:
        first = None
        for block in self.blocks:
            x = functional.max_pool2d(block(x), 2) if x.shape[-1] > 4 else block(x)
            first = x if first is None else first
        x = self.last(functional.pad(x, (0, 2, 0, 2)) if self.padded else x)
        pooled = [
            x.mean((2, 3)),
            *([first.mean((2, 3))] if self.skip and first is not None else []),
        ]
        return self.head(torch.cat(pooled, 1))


def blocks_of(model: Chain) -> dict[str, tuple[str, ...]]:
    named = {f"block {i}": (f"blocks.{i}",) for i in range(len(model.blocks))}
    return {**named, "last": ("last",), "head": ("head",)}


def found(model: Chain, trained: tuple[str, ...], size: int = 32) -> tuple[Candidate, ...]:
    frozen = {"": True, **dict.fromkeys(trained, False)}
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(any(name.startswith(part) for part in trained))
    made = candidates(record(model, torch.rand(4, 3, size, size)), frozen, blocks_of(model))
    assert isinstance(made, tuple)
    return made


def test_the_candidates_are_the_ends_of_blocks_with_their_smallest_boundary() -> None:
    places = found(Chain(), ("last", "head"))
    assert [one.place for one in places] == [f"behind block {i}" for i in range(4)]
    # Behind a block lies its pooling, which makes the row smaller and belongs to no block.
    shapes = [[spec.shape for spec in one.boundary] for one in places]
    assert shapes == [[(4, 16, 16)], [(4, 8, 8)], [(4, 4, 4)], [(4, 4, 4)]]
    assert [one.chosen for one in places] == [False, False, False, True]
    assert places[0].bytes_per_item == 4 * 4 * 16 * 16
    times = [one.prefix_seconds for one in places]
    assert times == sorted(set(times))
    assert places[-1].recomputed_seconds == 0 < places[0].recomputed_seconds
    whole = places[-1].prefix_seconds
    for one in places:
        assert one.prefix_seconds + one.recomputed_seconds == pytest.approx(whole)


@pytest.mark.parametrize("skip", [False, True])
def test_every_candidate_is_a_cut_that_holds(skip: bool) -> None:
    model = Chain(skip=skip).eval()
    for one in found(model, ("head",)):
        cut = one.cut()
        assert isinstance(cut, Cut)
        assert cut.check.exact
        assert cut is one.cut()
        assert cut.describe() == one.describe()
        x = torch.rand(5, 3, 32, 32)
        assert torch.equal(cut.suffix(*cut.prefix(x)), model(x))
    if skip:
        assert any(len(one.boundary) == 2 for one in found(model, ("head",)))


def test_the_chosen_one_is_what_find_cut_finds() -> None:
    model = Chain(skip=True)
    chosen = next(one for one in found(model, ("last", "head")) if one.chosen)
    frozen = {"": True, "last": False, "head": False}
    cut = find_cut(model, torch.rand(4, 3, 32, 32), frozen, measure=False)
    assert isinstance(cut, Cut)
    assert cut.describe() == chosen.describe()


def test_a_row_is_not_made_larger_to_save_a_padding() -> None:
    chosen = next(one for one in found(Chain(padded=True), ("last", "head")) if one.chosen)
    assert [spec.shape for spec in chosen.boundary] == [(4, 4, 4)]


def test_a_block_that_trains_in_part_ends_nothing() -> None:
    places = found(Chain(), ("blocks.2.0.bias", "last", "head"))
    assert [one.place for one in places] == ["behind block 0", "behind block 1"]


def test_of_many_blocks_some_are_shown_with_the_chosen_and_the_last_one() -> None:
    places = found(Chain(25), ("last", "head"))
    assert len(places) == MOST
    assert places[-1].place == "behind block 24"
    assert sum(one.chosen for one in places) == 1
    numbers = [int(one.place.split()[-1]) for one in places]
    assert numbers == sorted(set(numbers))


def test_one_recording_serves_all_stages() -> None:
    model = Chain().requires_grad_(False)
    recording = record(model, torch.rand(4, 3, 32, 32))
    shown = []
    for trained in (("head",), ("last", "head"), ("blocks.3", "last", "head")):
        frozen = {"": True, **dict.fromkeys(trained, False)}
        made = candidates(recording, frozen, blocks_of(model))
        assert isinstance(made, tuple)
        assert all(isinstance(one.cut(), Cut) for one in made)
        shown.append(made[-1].place)
    assert shown == ["behind last", "behind block 3", "behind block 2"]


def test_where_nothing_is_frozen_there_is_no_candidate() -> None:
    model = Chain()
    made = candidates(record(model, torch.rand(2, 3, 16, 16)), {"": False}, blocks_of(model))
    assert isinstance(made, NoCut)
    assert "is not frozen" in made.reason or "moves" in made.reason
