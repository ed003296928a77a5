"""All norms and sources of chance at once, in the trainers that are dearer to start."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from headstart.core.errors import FreezeError
from headstart.freezing import FreezeHandle, compare_digests, digests, freeze
from tests.freezing.models import Everything, Ladder, batch
from tests.freezing.test_matrix import FROZEN, TRAINABLE, expected_to_move

DIRECTIONS = pytest.mark.parametrize("spec", [FROZEN, TRAINABLE], ids=["frozen", "trainable"])


class Modes:
    """Records in which mode each module of the encoder ran while the decoder trained."""

    def __init__(self, net: Everything) -> None:
        self.seen: set[tuple[str, bool]] = set()
        for name, module in net.encoder.named_modules():
            module.register_forward_hook(self._hook(net, name))

    def _hook(self, net: Everything, name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            if net.decoder[2].training:
                self.seen.add((name, module.training))

        return hook


def start(spec: dict[str, str]) -> tuple[Everything, Modes, dict[str, str]]:
    torch.manual_seed(0)
    net = Everything().train()
    net.encoder.eval()
    modes = Modes(net)
    return net, modes, digests(net.encoder)


def finish(spec: dict[str, str], net: Everything, modes: Modes, before: dict[str, str]) -> None:
    after = digests(net.encoder)
    assert {mode for _, mode in modes.seen} == {spec is TRAINABLE}
    assert len(modes.seen) > 25
    if spec is TRAINABLE:
        expected_to_move(net.encoder, before, after)
    else:
        assert compare_digests(before, after) == ()
        FreezeHandle.of(net).verify()


def loader(count: int = 12) -> DataLoader[tuple[Tensor, ...]]:
    images, labels = batch(3, count)
    return DataLoader(TensorDataset(images, labels), batch_size=6)


def lightning_module(net: nn.Module) -> Any:
    lightning = pytest.importorskip("lightning")

    class Classifier(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def _loss(self, items: list[Tensor]) -> Tensor:
            return nn.functional.cross_entropy(self.net(items[0]), items[1])

        def training_step(self, items: list[Tensor], index: int) -> Tensor:
            return self._loss(items)

        def validation_step(self, items: list[Tensor], index: int) -> None:
            self._loss(items)

        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.AdamW(self.parameters(), lr=0.05, weight_decay=0.1)

    return Classifier()


def lightning_trainer(folder: Path, epochs: int) -> Any:
    import lightning

    return lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        devices=1,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        num_sanity_val_steps=1,
    )


@pytest.mark.filterwarnings("ignore")
@DIRECTIONS
def test_lightning_fit_with_validation(spec: dict[str, str], tmp_path: Path) -> None:
    net, modes, before = start(spec)
    module = lightning_module(net)
    freeze(net, spec)
    lightning_trainer(tmp_path, 2).fit(module, loader(), loader())
    finish(spec, net, modes, before)


@pytest.mark.filterwarnings("ignore")
def test_lightning_resume_restores_the_plan(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Everything().train()
    thawed = {"": "frozen", "encoder.0": "trainable", "decoder": "trainable"}
    freeze(net, thawed)
    trainer = lightning_trainer(tmp_path, 1)
    trainer.fit(lightning_module(net), loader(), loader())
    trainer.save_checkpoint(tmp_path / "middle.ckpt")

    again = Everything().train()
    freeze(again, {"": "frozen", "decoder": "trainable"})
    module = lightning_module(again)
    lightning_trainer(tmp_path, 2).fit(
        module, loader(), loader(), ckpt_path=tmp_path / "middle.ckpt"
    )
    handle = FreezeHandle.of(again)
    assert handle.plan.regions == FreezeHandle.of(net).plan.regions
    handle.verify()
    frozen = {n: d for n, d in digests(net).items() if n in handle.plan.frozen}
    assert {n: d for n, d in digests(again).items() if n in frozen} == frozen
    assert digests(again)["encoder.0.weight"] != digests(net)["encoder.0.weight"]


class Pictures(Dataset[dict[str, Tensor]]):
    def __init__(self, count: int = 12) -> None:
        self.images, self.labels = batch(3, count)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        return {"pixel_values": self.images[index], "labels": self.labels[index]}


class WithLoss(nn.Module):
    """What the Hugging Face Trainer expects: a forward that returns the loss."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, pixel_values: Tensor, labels: Tensor) -> dict[str, Tensor]:
        logits = self.net(pixel_values)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


def hugging_face_trainer(net: nn.Module, folder: Path, max_steps: int) -> Any:
    transformers = pytest.importorskip("transformers")
    arguments = transformers.TrainingArguments(
        output_dir=str(folder),
        max_steps=max_steps,
        per_device_train_batch_size=6,
        learning_rate=0.05,
        weight_decay=0.1,
        lr_scheduler_type="constant",
        eval_strategy="steps",
        eval_steps=1,
        save_strategy="steps",
        save_steps=1,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        logging_strategy="no",
    )
    return transformers.Trainer(
        WithLoss(net), arguments, train_dataset=Pictures(), eval_dataset=Pictures()
    )


@pytest.mark.filterwarnings("ignore")
@DIRECTIONS
def test_hugging_face_trainer_with_resume(spec: dict[str, str], tmp_path: Path) -> None:
    net, modes, before = start(spec)
    freeze(net, spec)
    hugging_face_trainer(net, tmp_path, 2).train()
    finish(spec, net, modes, before)

    again = Everything().train()
    again.load_state_dict(net.state_dict())
    freeze(again, spec)
    hugging_face_trainer(again, tmp_path, 3).train(
        resume_from_checkpoint=str(tmp_path / "checkpoint-2")
    )
    FreezeHandle.of(again).verify()
    same = compare_digests(digests(net.encoder), digests(again.encoder)) == ()
    assert same == (spec is FROZEN)


@pytest.mark.filterwarnings("ignore")
@DIRECTIONS
def test_accelerate(spec: dict[str, str]) -> None:
    accelerate = pytest.importorskip("accelerate")
    net, modes, before = start(spec)
    freeze(net, spec)
    accelerator = accelerate.Accelerator(cpu=True)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.05, weight_decay=0.1)
    wrapped, optimizer, items = accelerator.prepare(net, optimizer, loader())
    for _ in range(2):
        wrapped.train()
        for images, labels in items:
            with accelerator.accumulate(wrapped):
                accelerator.backward(nn.functional.cross_entropy(wrapped(images), labels))
                optimizer.step()
                optimizer.zero_grad()
        wrapped.eval()
        wrapped(images)
    finish(spec, net, modes, before)


def _distributed(rank: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    store = f"file://{folder}/store"
    torch.distributed.init_process_group("gloo", init_method=store, rank=rank, world_size=2)
    _train_distributed(rank, FROZEN)
    _train_distributed(rank, TRAINABLE)
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


def _train_distributed(rank: int, spec: dict[str, str]) -> None:
    torch.manual_seed(0)
    net = Everything().train()
    net.encoder.eval()
    # DistributedDataParallel refuses SyncBatchNorm on the CPU, in whatever mode.
    net.encoder = Ladder(*(m for m in net.encoder if not isinstance(m, nn.SyncBatchNorm)))
    before = digests(net.encoder)
    freeze(net, spec)
    wrapped = nn.parallel.DistributedDataParallel(net)
    optimizer = torch.optim.AdamW(wrapped.parameters(), lr=0.05, weight_decay=0.1)
    for step in range(2):
        wrapped.train()
        images, labels = batch(10 * step + rank)
        optimizer.zero_grad()
        nn.functional.cross_entropy(wrapped(images), labels).backward()
        optimizer.step()
    with pytest.raises(FreezeError, match="before wrapping"):
        freeze(wrapped, spec)
    if spec is TRAINABLE:
        expected_to_move(net.encoder, before, digests(net.encoder))
        assert all(module.training for module in net.modules())
    else:
        assert compare_digests(before, digests(net.encoder)) == ()
        assert not any(module.training for module in net.encoder.modules())
        FreezeHandle.of(wrapped).verify()


@pytest.mark.slow
@pytest.mark.skipif(not torch.distributed.is_available(), reason="torch without distributed")
def test_two_processes_of_distributed_data_parallel(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(_distributed, (str(tmp_path),), nprocs=2)


@DIRECTIONS
def test_compiled_without_graph_break_or_recompilation(spec: dict[str, str]) -> None:
    from torch._dynamo.testing import CompileCounter

    def graphs(contract: bool) -> tuple[int, Everything]:
        torch._dynamo.reset()
        torch.manual_seed(0)
        net = Everything().train()
        # The cumulative norm reads its counter back, which breaks the graph in training without
        # a contract too; it is covered frozen.
        if spec is TRAINABLE:
            net.encoder = Ladder(
                *(m for m in net.encoder if getattr(m, "momentum", 0.1) is not None)
            )
        if contract:
            freeze(net, spec)
        counter = CompileCounter()
        compiled = torch.compile(net, backend=counter, fullgraph=True)
        optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
        for step in range(3):
            compiled.train()
            images, labels = batch(step)
            optimizer.zero_grad()
            nn.functional.cross_entropy(compiled(images), labels).backward()
            optimizer.step()
        if contract and spec is FROZEN:
            FreezeHandle.of(compiled).verify()
        return counter.frame_count, net

    try:
        with_contract, net = graphs(contract=True)
        without, _ = graphs(contract=False) if spec is TRAINABLE else (1, None)
    finally:
        torch._dynamo.reset()
    assert with_contract == without == 1
    assert net.encoder[0].weight.requires_grad == (spec is TRAINABLE)


def test_switching_modes_of_a_compiled_frozen_part_compiles_nothing_anew() -> None:
    from torch._dynamo.testing import CompileCounter

    torch._dynamo.reset()
    try:
        net = Everything()
        freeze(net, "frozen")
        counter = CompileCounter()
        compiled = torch.compile(net, backend=counter, fullgraph=True)
        images, _ = batch()
        with torch.no_grad():
            outputs = [compiled.train(mode)(images) for mode in (True, False, True)]
        assert counter.frame_count == 1
        assert torch.equal(outputs[0], outputs[1])
        FreezeHandle.of(compiled).verify()
    finally:
        torch._dynamo.reset()
