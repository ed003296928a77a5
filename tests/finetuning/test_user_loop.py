"""Stored rows for a loop of one's own: the same weights, two changed lines."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from headstart.cache import FeatureCache
from headstart.core.errors import DataError, FreezeError
from headstart.finetuning import freeze_and_cache
from headstart.freezing import FreezeHandle, freeze
from headstart.modules.digests import digests
from tests.finetuning.models import Residual
from tests.finetuning.test_loop import Skips

SPEC = {"": "frozen", "blocks.2": "trainable-fixed-norm", "tail": "trainable"}


def model(seed: int = 0, dropout: float = 0.0) -> Residual:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Residual(dropout=dropout)


def items(n: int = 20) -> TensorDataset:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(n, 3, 16, 16, generator=generator)
    return TensorDataset(x, torch.arange(n) % 7)


def train(net: nn.Module, data: Dataset[object], parameters: list[nn.Parameter]) -> list[float]:
    """A plain loop, which knows nothing of any cache."""
    optimizer = torch.optim.SGD(parameters, lr=0.05, momentum=0.9)
    losses = []
    generator = torch.Generator().manual_seed(1)
    loader = DataLoader(data, batch_size=8, shuffle=True, generator=generator)
    torch.manual_seed(2)
    for _ in range(3):
        net.train()
        for x, labels in loader:
            loss = nn.functional.cross_entropy(net(x), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


def trainable(net: nn.Module) -> list[nn.Parameter]:
    return [p for p in net.parameters() if p.requires_grad]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_two_changed_lines_give_the_same_training(tmp_path: Path, dropout: float) -> None:
    plain, fast = model(dropout=dropout), model(dropout=dropout)
    freeze(plain, SPEC)
    expected = train(plain, items(), trainable(plain))
    suffix, rows = freeze_and_cache(fast, items(), SPEC, cache=tmp_path, batch_size=8)
    found = train(suffix, rows, trainable(fast))
    assert found == pytest.approx(expected, abs=1e-6)
    for name, tensor in plain.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], tensor, msg=name)
    assert FreezeHandle.of(fast).verify().holds


def test_a_second_call_computes_nothing_and_order_does_not_matter(tmp_path: Path) -> None:
    data = items()
    _, first = freeze_and_cache(model(), data, SPEC, cache=tmp_path)
    calls: list[int] = []
    again = model()
    again.stem.register_forward_hook(lambda *_: calls.append(1))
    reversed_data = TensorDataset(data.tensors[0].flip(0), data.tensors[1].flip(0))
    _, second = freeze_and_cache(again, reversed_data, SPEC, cache=tmp_path)
    probing = len(calls)
    assert torch.equal(first[3][0], second[len(data) - 4][0])
    assert int(second[0][1]) == int(data[len(data) - 1][1])
    store = FeatureCache(tmp_path).store
    assert [info.rows for info in store.spaces()] == [len(data)]
    # Finding and checking the cut runs a few small batches; the data itself is not run.
    freeze_and_cache(again, items(200), SPEC, cache=tmp_path / "other", batch_size=10)
    assert len(calls) > 2 * probing


def test_several_boundary_tensors_come_as_a_tuple(tmp_path: Path) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = Skips()
    spec = {"": "frozen", "fuse": "trainable", "out": "trainable"}
    suffix, rows = freeze_and_cache(net, items(), spec, cache=tmp_path)
    boundary, _ = rows[0]
    assert isinstance(boundary, tuple)
    (batch, _) = next(iter(DataLoader(rows, batch_size=4)))
    x = items().tensors[0][:4]
    suffix.eval()
    with torch.no_grad():
        torch.testing.assert_close(suffix(batch), net(x))


def test_inputs_alone_and_a_contract_that_is_there_already(tmp_path: Path) -> None:
    class Inputs(Dataset[Tensor]):
        def __len__(self) -> int:
            return 5

        def __getitem__(self, index: int) -> Tensor:
            return items().tensors[0][index]

    net = model()
    freeze(net, SPEC)
    before = digests(net)
    suffix, rows = freeze_and_cache(net, Inputs(), cache=tmp_path)
    assert isinstance(rows[-1], Tensor)
    assert digests(net) == before
    with pytest.raises(IndexError):
        rows[5]
    assert suffix(torch.stack([rows[0], rows[1]])).shape == (2, 7)


def test_what_cannot_be_stored_is_refused(tmp_path: Path) -> None:
    class Noisy(Dataset[tuple[Tensor, int]]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[Tensor, int]:
            return torch.randn(3, 16, 16), 0

    with pytest.raises(DataError, match="a different tensor on every access"):
        freeze_and_cache(model(), Noisy(), SPEC, cache=tmp_path)
    with pytest.raises(FreezeError, match="nothing says which"):
        freeze_and_cache(model(), items(), cache=tmp_path)
    with pytest.raises(FreezeError, match="no part of the model can be computed once"):
        freeze_and_cache(model(), items(), "trainable", cache=tmp_path)
    with pytest.raises(DataError, match="has a int as its input"):
        freeze_and_cache(model(), [1, 2], SPEC, cache=tmp_path)
