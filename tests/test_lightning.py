"""Lightning's real Trainer: what is frozen stays, a leak is found, a resumed run goes on."""

from __future__ import annotations

import copy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import headstart
from headstart.core.errors import FreezeError
from headstart.core.progress import SilentReporter
from headstart.data import numbered_views

lightning = pytest.importorskip("lightning.pytorch")
from lightning.fabric.utilities.distributed import DistributedSamplerWrapper  # noqa: E402

from headstart.lightning import CachedFeatures, Freeze  # noqa: E402

QUIET = SilentReporter()


class Net(lightning.LightningModule):  # type: ignore[misc,name-defined]
    """A backbone with batch norm and dropout, whose author calls ``train()`` on it."""

    def __init__(self, *, leak: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Sequential(
            nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.5), nn.Linear(8, 4)
        )
        self.head = nn.Linear(4, 3)
        self.leak = leak
        self.modes: list[bool] = []

    def training_step(self, batch: Any, _: int) -> Tensor:
        self.backbone.train()
        self.modes.append(self.backbone[1].training or self.backbone[3].training)
        x, y = batch
        if self.leak:
            with torch.no_grad():
                self.backbone[1].running_mean += 0.1
        return nn.functional.cross_entropy(self.head(self.backbone(x)), y)

    def validation_step(self, batch: Any, _: int) -> None:
        x, y = batch
        self.log("loss", nn.functional.cross_entropy(self.head(self.backbone(x)), y))

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.05, weight_decay=0.1)


def batches(n: int = 48) -> Any:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(n, 6, generator=generator)
    data = torch.utils.data.TensorDataset(x, (x.sum(1) > 0).long())
    return torch.utils.data.DataLoader(data, 8)


def trainer(epochs: int, callback: Any, folder: Path | None = None, **more: Any) -> Any:
    return lightning.Trainer(
        max_epochs=epochs, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, accelerator="cpu", callbacks=[callback],
        default_root_dir=folder, **more,
    )  # fmt: skip


def state(module: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(module.state_dict())


def equal(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("compiled", [False, True])
def test_what_is_frozen_does_not_move(compiled: bool) -> None:
    net, freeze = Net(), Freeze({"backbone": "frozen"}, every_epoch=True)
    before, head = state(net.backbone), state(net.head)
    model = torch.compile(net, backend="eager") if compiled else net
    trainer(2, freeze).fit(model, batches(), batches(16))
    assert equal(before, state(net.backbone))
    assert not equal(head, state(net.head))
    assert not any(net.modes)
    assert freeze.verification is not None
    assert freeze.verification.holds
    assert freeze.verification.checked == 9


@pytest.mark.parametrize(
    ("precision", "dtype"),
    [("bf16-true", torch.bfloat16), ("64-true", torch.float64), ("bf16-mixed", torch.float32)],
)
def test_a_model_that_lightning_converts_has_not_moved(precision: str, dtype: torch.dtype) -> None:
    net = Net()
    converted = state(copy.deepcopy(net.backbone).to(dtype))
    callback = Freeze({"backbone": "frozen"})
    trainer(2, callback, precision=precision).fit(net, batches())
    assert callback.verification is not None
    assert equal(state(net.backbone), converted)
    with pytest.raises(FreezeError, match=r"backbone\.1\.running_mean"):
        trainer(1, Freeze({"backbone": "frozen"}), precision=precision).fit(
            Net(leak=True), batches()
        )


def test_without_it_the_statistics_drift() -> None:
    """The control: the same training with parameters frozen alone moves running statistics."""
    net = Net()
    net.backbone.requires_grad_(False)
    before = state(net.backbone)
    trainer(1, lightning.Callback()).fit(net, batches())
    assert not torch.equal(before["1.running_mean"], net.backbone[1].running_mean)


def test_lightnings_own_finetuning_does_not_undo_it() -> None:
    class Thaw(lightning.callbacks.BaseFinetuning):  # type: ignore[misc,name-defined]
        def freeze_before_training(self, pl_module: Any) -> None:
            self.freeze(pl_module.backbone, train_bn=True)  # statistics go on moving

        def finetune_function(self, pl_module: Any, epoch: int, optimizer: Any) -> None:
            pass

    net, freeze = Net(), Freeze({"backbone": "frozen"})
    before = state(net.backbone)
    made = trainer(1, freeze)
    made.callbacks.insert(0, Thaw())
    made.fit(net, batches())
    assert equal(before, state(net.backbone))


class _PutsWeightsIn(lightning.Callback):  # type: ignore[misc,name-defined]
    """What averaging callbacks do: at the very end the model gets other weights."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        with torch.no_grad():
            for parameter in pl_module.parameters():
                parameter.mul_(1 + 1e-6)


@pytest.mark.parametrize("first", [True, False])
def test_weights_put_in_at_the_end_are_found_whatever_the_order_of_callbacks(first: bool) -> None:
    freezing, putting = Freeze({"backbone": "frozen"}), _PutsWeightsIn()
    made = trainer(1, freezing)
    made.callbacks.insert(len(made.callbacks) if first else 0, putting)
    with pytest.raises(FreezeError, match=r"backbone\.0\.weight"):
        made.fit(Net(), batches())


def test_a_leak_ends_the_training_with_its_name() -> None:
    with pytest.raises(FreezeError, match=r"1 of 9 frozen tensors moved: .*running_mean"):
        trainer(1, Freeze({"backbone": "frozen"})).fit(Net(leak=True), batches())


def test_a_resumed_run_is_compared_with_its_first_start(tmp_path: Path) -> None:
    net = Net()
    first = trainer(1, Freeze({"backbone": "frozen"}))
    first.fit(net, batches())
    first.save_checkpoint(tmp_path / "one.ckpt")
    frozen = state(net.backbone)

    again, freeze = Net(), Freeze({"backbone": "frozen"})
    nn.init.normal_(again.backbone[0].weight)  # a process that builds it anew has other numbers
    trainer(2, freeze).fit(again, batches(), ckpt_path=tmp_path / "one.ckpt", weights_only=False)
    assert equal(frozen, state(again.backbone))
    assert freeze.verification is not None
    assert freeze.verification.holds

    saved = torch.load(tmp_path / "one.ckpt", weights_only=False)
    saved["state_dict"]["backbone.1.running_var"] += 1e-3  # it moved in between
    torch.save(saved, tmp_path / "moved.ckpt")
    with pytest.raises(FreezeError, match="running_var"):
        trainer(2, Freeze({"backbone": "frozen"})).fit(
            Net(), batches(), ckpt_path=tmp_path / "moved.ckpt", weights_only=False
        )


def test_a_model_that_is_frozen_already_and_one_that_is_not() -> None:
    net, freeze = Net(), Freeze()
    headstart.freeze(net, {"backbone": "frozen"})
    trainer(1, freeze).fit(net, batches())
    assert freeze.handle is not None
    freeze.handle.release()
    assert net.backbone[0].weight.requires_grad
    with pytest.raises(FreezeError, match="no contract"):
        trainer(1, Freeze()).fit(Net(), batches())


# -- cached features -----------------------------------------------------------------------------


def images(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    x = draw.integers(0, 90, (n, 16, 16, 3), dtype=np.uint8)
    y = np.arange(n) % 3
    for i, label in enumerate(y):
        x[i, :, label * 5 : label * 5 + 5] += 150
    return x, y


@pytest.fixture(scope="module")
def data() -> Any:
    return headstart.load_data({"train": images(90, 0), "test": images(30, 1)})


class Head(lightning.LightningModule):  # type: ignore[misc,name-defined]
    def __init__(self, features: int) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.linear = nn.Linear(features, 3)
        self.seen: list[Tensor] = []

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        self.seen.append(x[:, 0].clone())
        return nn.functional.cross_entropy(self.linear(x), y)

    def test_step(self, batch: Any, index: int) -> None:
        x, y = batch
        self.log("accuracy", (self.linear(x).argmax(1) == y).float().mean())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=0.5)


def module(data: Any, cache: Path, **more: Any) -> CachedFeatures:
    made = CachedFeatures(
        data, "headstart/glyphs", batch_size=16, cache=str(cache), reporter=QUIET, **more
    )
    made.setup()
    return made


def nothing() -> Any:
    return lightning.Callback()


def test_rows_are_those_of_the_cache_and_train_a_head(data: Any, tmp_path: Path) -> None:
    rows = module(data, tmp_path)
    assert rows.n_features == 128
    assert rows.classes == ("0", "1", "2")
    head = Head(rows.n_features)
    made = trainer(4, nothing())
    made.fit(head, rows)
    (scores,) = made.test(head, rows, verbose=False)
    assert scores["accuracy"] > 0.8
    x, y = next(iter(rows.test_dataloader()))
    assert x.dtype == torch.float32
    assert y.dtype == torch.int64
    found = headstart.FeatureCache(tmp_path).features(
        headstart.load_backbone("headstart/glyphs"), data.test
    )
    assert np.array_equal(x.numpy(), np.asarray(found.rows[:16]))
    assert found.use.misses == 0
    held = sum(len(y) for _, y in rows.val_dataloader())
    trained = sum(len(y) for _, y in rows.train_dataloader())
    assert (held, trained) == (18, 72)


def test_a_resumed_run_sees_the_batches_that_it_would_have_seen(data: Any, tmp_path: Path) -> None:
    views = numbered_views(2, seed=3)
    whole = Head(128)
    trainer(4, nothing()).fit(whole, module(data, tmp_path, views=views))
    first = trainer(2, nothing())
    begun = Head(128)
    first.fit(begun, module(data, tmp_path, views=views))
    first.save_checkpoint(tmp_path / "two.ckpt")
    rest = Head(128)
    trainer(4, nothing()).fit(
        rest, module(data, tmp_path, views=views), ckpt_path=tmp_path / "two.ckpt",
        weights_only=False,
    )  # fmt: skip
    expected = torch.cat(whole.seen)
    assert torch.equal(torch.cat([*begun.seen, *rest.seen]), expected)
    epochs = expected.reshape(4, -1)
    assert not torch.equal(epochs[0].sort().values, epochs[1].sort().values)  # another view
    assert torch.equal(epochs[0].sort().values, epochs[2].sort().values)  # in another order
    assert not torch.equal(epochs[0], epochs[2])
    assert all(
        torch.equal(a, b) for a, b in zip(whole.parameters(), rest.parameters(), strict=True)
    )


def test_views_follow_the_epoch_also_where_other_processes_read(data: Any, tmp_path: Path) -> None:
    """Processes that read outlive an epoch: what the main process sets later, they never see."""
    seen = []
    for workers in (0, 1):
        head = Head(128)
        rows = module(data, tmp_path, views=numbered_views(2, seed=3), workers=workers)
        trainer(3, nothing()).fit(head, rows)
        seen.append(torch.cat(head.seen))
    assert torch.equal(*seen)


def test_devices_share_an_epoch_and_its_view(data: Any, tmp_path: Path) -> None:
    rows = module(data, tmp_path, views=numbered_views(2, seed=3), validation=0)
    loader = rows.train_dataloader()
    for epoch in (0, 1):
        parts = [DistributedSamplerWrapper(loader.sampler, 2, rank) for rank in range(2)]
        for part in parts:
            part.set_epoch(epoch)
        indices = [index for part in parts for index in part]
        assert sorted(indices) == list(range(90 * epoch, 90 * (epoch + 1)))
        x, y = loader.dataset.__getitems__(indices)
        expected = rows._rows["train"].rows[epoch]
        assert np.array_equal(x.numpy(), expected[np.asarray(indices) - 90 * epoch])
        assert torch.equal(y, rows._rows["train"].y[torch.tensor(indices) - 90 * epoch])


def test_importing_headstart_imports_no_lightning() -> None:
    code = "import sys, headstart; headstart.fit; print('lightning' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("room", "package", "extra"),
    [("lightning", "lightning", "lightning"), ("huggingface", "transformers", "transformers")],
)
def test_a_missing_library_is_one_line_with_the_extra(room: str, package: str, extra: str) -> None:
    code = (
        f"import sys; sys.modules[{package!r}] = None\n"
        "from headstart.core.errors import MissingExtraError\n"
        f"try:\n    import headstart.{room}\nexcept MissingExtraError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert f"pip install 'headstart[{extra}]'" in done.stdout
