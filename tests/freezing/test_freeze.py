"""The contract: selecting parts, refusing contradictions, holding, verifying, releasing."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

import headstart.freezing as freezing
from headstart.core.errors import FreezeError
from headstart.freezing import FreezeHandle, FreezePolicy, freeze, plan_freeze, refreeze
from tests.freezing.models import NORMS, TwoParts, batch


def model() -> TwoParts:
    return TwoParts(lambda: nn.Sequential(nn.BatchNorm2d(4), nn.Dropout(0.5)))


def train(net: nn.Module, steps: int = 2, lr: float = 0.1) -> None:
    parameters = list(net.parameters())
    optimizer = torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=0.1)
    for step in range(steps):
        net.train()
        images, labels = batch(step)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()


class TestSelection:
    def test_longest_name_wins_whatever_the_order(self) -> None:
        spec = {"encoder.1": "trainable", "": "trainable", "encoder": "frozen"}
        for entries in (spec, dict(reversed(spec.items()))):
            plan = plan_freeze(model(), entries)
            assert "encoder.0.weight" in plan.frozen
            assert "encoder.1.0.weight" in plan.trainable
            assert "decoder.3.weight" in plan.trainable

    def test_globs_expressions_and_modules(self) -> None:
        net = model()
        by_glob = plan_freeze(net, {"enc*": "frozen", "dec*": "trainable"})
        by_expression = plan_freeze(net, {re.compile("enc.*"): "frozen", "decoder": "trainable"})
        by_module = plan_freeze(net, {net.encoder: "frozen", net.decoder: "trainable"})
        assert set(by_glob.frozen) == set(by_expression.frozen) == set(by_module.frozen)
        mixed = plan_freeze(net, {"enc*": "frozen", "encoder": "trainable"})
        assert "encoder.0.weight" in mixed.trainable

    def test_every_fault_is_named_together(self) -> None:
        with pytest.raises(FreezeError) as caught:
            plan_freeze(
                model(),
                {"encodr": "frozen", "decoder.3.weight": "frozen", nn.ReLU(): "frozen"},
            )
        message = str(caught.value)
        assert "nearest names are 'encoder'" in message
        assert "'decoder.3.weight' is a parameter; policies govern modules" in message
        assert "ReLU is not part of the model" in message

    def test_contradicting_globs_are_refused(self) -> None:
        with pytest.raises(FreezeError, match="different policies"):
            plan_freeze(model(), {"enc*": "frozen", "*coder": "trainable"})
        with pytest.raises(FreezeError, match="empty"):
            plan_freeze(model(), {})

    def test_tied_parameters_and_shared_modules(self) -> None:
        class Tied(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a, self.b, self.shared = nn.Linear(2, 2), nn.Linear(2, 2), nn.Linear(2, 2)
                self.b.weight = self.a.weight
                self.again = self.shared
                self.view = nn.Linear(2, 2)
                self.view.weight = nn.Parameter(self.shared.weight.detach().view(2, 2))

        with pytest.raises(FreezeError, match=r"'a\.weight' and 'b\.weight' are one tensor"):
            plan_freeze(Tied(), {"a": "frozen", "b": "trainable"})
        with pytest.raises(FreezeError, match="one module, used twice"):
            plan_freeze(Tied(), {"shared": "frozen", "again": "trainable"})
        with pytest.raises(FreezeError, match="share memory"):
            plan_freeze(Tied(), {"shared": "frozen", "view": "trainable"})
        plan = plan_freeze(Tied(), {"a": "frozen", "b": "frozen"})
        assert any("are one tensor" in note for note in plan.notes)

    def test_layers_that_cannot_do_what_is_asked(self) -> None:
        without = nn.Sequential(nn.BatchNorm1d(3, track_running_stats=False))
        with pytest.raises(FreezeError, match="always normalise by the batch"):
            freeze(without, "frozen")
        with pytest.raises(FreezeError, match="run one batch"):
            freeze(nn.Sequential(nn.LazyLinear(3)), "frozen")
        held = FreezePolicy(norm="batch")
        with pytest.raises(FreezeError, match="update their running statistics whenever"):
            freeze(TwoParts(NORMS["InstanceNorm2d"]), {"encoder": held})
        with pytest.raises(FreezeError, match="were not re-estimated"):
            freeze(model(), {"encoder": "frozen-reestimated"})

    def test_autograd_contradictions(self) -> None:
        off = FreezePolicy(autograd="no_grad")
        with pytest.raises(FreezeError, match="could never receive a gradient"):
            freeze(model(), {"": off, "decoder": "trainable"})
        with pytest.raises(FreezeError, match="cannot take part in training"):
            freeze(model(), {"encoder": "features", "decoder": "trainable"})
        with pytest.raises(FreezeError, match=r"comes after 'encoder\.0\.weight'"):
            freeze(model(), {"encoder.0": "trainable", "encoder.2": off})

    def test_a_refused_freeze_changes_nothing(self) -> None:
        net = model()
        before = {n: m.__dict__.copy() for n, m in net.named_modules()}
        with pytest.raises(FreezeError):
            freeze(net, {"encoder": "frozen", "typo": "frozen"})
        bare = copy.deepcopy(net).to("meta")
        with pytest.raises(FreezeError, match="cannot be read"):
            freeze(bare, {"encoder": "frozen"})
        assert all(p.requires_grad for p in bare.parameters())
        assert all(m.__dict__.keys() == before[n].keys() for n, m in net.named_modules())
        assert all(p.requires_grad for p in net.parameters())

    def test_wrappers(self) -> None:
        with pytest.raises(FreezeError, match="before wrapping"):
            freeze(nn.DataParallel(model()), {"encoder": "frozen"})
        with pytest.raises(FreezeError, match=r"torch\.nn\.Module"):
            freeze("resnet", "frozen")
        net = model()
        freeze(torch.compile(net), {"encoder": "frozen"})
        assert FreezeHandle.of(net).plan.frozen


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_nearest_named_ancestor_governs(data: st.DataObject) -> None:
    """Against an oracle: every tensor obeys the longest named prefix of its own name."""
    net = nn.Sequential(*(nn.Sequential(nn.Linear(1, 1), nn.Linear(1, 1)) for _ in range(3)))
    names = [name for name, _ in net.named_modules()]
    presets = st.sampled_from(["frozen", "trainable"])
    spec = data.draw(st.dictionaries(st.sampled_from(names), presets, min_size=1))
    plan = plan_freeze(net, spec)
    for name, _ in net.named_parameters():
        named = [p for p in spec if not p or name.startswith(p + ".")]
        expected = spec[max(named, key=len)] if named else None
        assert (name in plan.frozen) == (expected == "frozen")
        assert (name in plan.trainable) == (expected == "trainable")


class TestHolding:
    def test_train_reaches_what_is_free_and_not_what_is_held(self) -> None:
        net = model()
        handle = freeze(net, {"encoder": "frozen"})
        net.apply(lambda module: module.train())
        assert not any(module.training for module in net.encoder.modules())
        assert all(module.training for module in net.decoder.modules())
        net.eval()
        assert not any(module.training for module in net.modules())
        net.train()
        train(net)
        handle.verify()

    def test_without_the_contract_the_same_training_leaks(self) -> None:
        net = model()
        net.encoder.requires_grad_(False)
        before = freezing.digests(net.encoder)
        train(net)
        moved = freezing.compare_digests(before, freezing.digests(net.encoder))
        assert moved == ("1.0.num_batches_tracked", "1.0.running_mean", "1.0.running_var")

    def test_nothing_that_a_user_notices_changes(self) -> None:
        net = model()
        types = [type(module) for module in net.modules()]
        keys = list(net.state_dict())
        parameters = list(net.parameters())
        handle = freeze(net, {"encoder": "frozen"})
        assert [type(module) for module in net.modules()] == types
        assert list(net.state_dict()) == keys
        assert all(a is b for a, b in zip(net.parameters(), parameters, strict=True))
        handle.release()
        fresh = model()
        for (_, mine), (_, other) in zip(net.named_modules(), fresh.named_modules(), strict=True):
            assert mine.__dict__.keys() == other.__dict__.keys()

    def test_staged_thawing_is_a_sequence_of_calls(self) -> None:
        net = model().train()
        freeze(net, {"": "frozen", "decoder": "trainable"})
        freeze(net, {"": "frozen", "decoder": "trainable"})
        identities = [id(p) for p in net.parameters()]
        handle = freeze(
            net, {"": "frozen", "encoder.1": "trainable-fixed-norm", "decoder": "trainable"}
        )
        net.train()
        assert [id(p) for p in net.parameters()] == identities
        assert net.encoder[1][1].training
        assert not net.encoder[1][0].training
        assert net.encoder[1][0].weight.requires_grad
        train(net)
        handle.verify()
        handle.release()
        assert all(module.training for module in net.modules())
        assert all(p.requires_grad for p in net.parameters())

    def test_release_restores_gradients_as_they_were(self) -> None:
        net = model()
        net.encoder[0].bias.requires_grad_(False)
        freeze(net, "trainable")
        assert net.encoder[0].bias.requires_grad
        FreezeHandle.of(net).release()
        assert not net.encoder[0].bias.requires_grad
        with pytest.raises(FreezeError, match="no contract"):
            FreezeHandle.of(net)

    def test_stale_gradients_are_dropped(self) -> None:
        net = model()
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, weight_decay=0.1)
        images, labels = batch()
        nn.functional.cross_entropy(net(images), labels).backward()
        optimizer.step()
        handle = freeze(net, {"encoder": "frozen"})
        optimizer.step()
        handle.verify()

    def test_batch_statistics_that_do_not_move(self) -> None:
        net = model().train()
        policy = FreezePolicy(norm="batch")
        handle = freeze(net, {"encoder": policy})
        images, _ = batch()
        norm = net.encoder[1][0]
        expected = torch.nn.functional.batch_norm(
            net.encoder[0](images), None, None, norm.weight, norm.bias, training=True
        )
        assert torch.equal(norm(net.encoder[0](images)), expected)
        handle.verify()
        net.eval()
        x = net.encoder[0](images)
        running = torch.nn.functional.batch_norm(
            x, norm.running_mean, norm.running_var, norm.weight, norm.bias
        )
        assert torch.equal(norm(x), running)
        handle.release()
        assert norm.track_running_stats

    def test_affine_on_its_own(self) -> None:
        net = model()
        handle = freeze(net, "norm-only")
        assert set(handle.plan.trainable) == {
            "encoder.1.0.weight", "encoder.1.0.bias", "decoder.1.weight", "decoder.1.bias",
        }  # fmt: skip

    def test_intent_wins_over_the_mode_that_happens_to_be(self) -> None:
        net = model().train()
        net.encoder.eval()
        freeze(net, {"encoder": "trainable"})
        assert all(module.training for module in net.encoder.modules())

    def test_autograd_modes(self) -> None:
        net = model()
        freeze(net, {"encoder": FreezePolicy(autograd="no_grad"), "decoder": "trainable"})
        images, _ = batch()
        assert net(images).requires_grad
        assert not net.encoder(images).requires_grad
        with pytest.raises(FreezeError, match="would be lost"):
            net(images.requires_grad_())
        clone = copy.deepcopy(net)
        assert clone.encoder.forward.module is clone.encoder
        FreezeHandle.of(net).release()
        assert net.encoder(images).requires_grad
        freeze(net, "features")
        assert net(batch()[0]).is_inference()

    def test_one_contract_a_part(self) -> None:
        net = model()
        freeze(net.encoder, "frozen")
        with pytest.raises(FreezeError, match="another contract already governs"):
            freeze(net, "frozen")
        freeze(net.decoder, "trainable")
        with pytest.raises(FreezeError, match="several parts"):
            FreezeHandle.of(net)


class TestVerification:
    def test_names_what_moved_and_by_how_much(self) -> None:
        net = model()
        handle = freeze(net, {"encoder": "frozen"})
        with torch.no_grad():
            net.encoder[1][0].running_mean += 0.25
        net.encoder[0].weight.data.mul_(1.5)
        with pytest.raises(FreezeError) as caught:
            handle.verify()
        assert "2 of" in str(caught.value)
        assert "encoder.1.0.running_mean (largest change 0.25" in str(caught.value)
        assert "encoder.0.weight" in str(caught.value)
        assert "50.00%" in str(caught.value)

    def test_names_flips_in_both_directions(self) -> None:
        net = model()
        handle = freeze(net, {"encoder": "frozen", "decoder": "trainable"})
        net.encoder[1][1].training = True
        net.encoder[0].weight.requires_grad_(True)
        net.decoder.eval()
        net.decoder[3].bias.requires_grad_(False)
        faults = " | ".join(handle.check().faults)
        assert "'encoder.1.1' is in training mode" in faults
        assert "'encoder.0.weight' is frozen" in faults
        assert "'decoder.2' is in evaluation mode while the model trains" in faults
        assert "'decoder.3.bias' is trainable" in faults

    def test_sees_modules_that_were_replaced(self) -> None:
        net = model()
        handle = freeze(net, {"encoder": "frozen"})
        net.encoder[1] = nn.SyncBatchNorm.convert_sync_batchnorm(net.encoder[1])
        assert any("replaced by a module" in fault for fault in handle.check().faults)
        net.encoder[2] = nn.Identity()
        assert any("'encoder.2.weight' is gone" in fault for fault in handle.check().faults)


class TestCheckpoints:
    def test_resume_carries_the_plan_and_the_digests(self, tmp_path: Path) -> None:
        net = model()
        freeze(net, {"": "frozen", "decoder": "trainable", "encoder.1": "trainable"})
        train(net)
        torch.save(net.state_dict(), tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)

        resumed = model()
        handle = freeze(resumed, {"": "frozen", "decoder": "trainable"})
        with pytest.warns(UserWarning, match="another freeze plan"):
            resumed.load_state_dict(state)
        assert handle.plan.regions == FreezeHandle.of(net).plan.regions
        train(resumed)
        handle.verify()
        assert freezing.digest(resumed.encoder[0]) == freezing.digest(net.encoder[0])

        afresh = model()
        afresh.load_state_dict(state)
        assert refreeze(afresh, state).plan.regions == handle.plan.regions
        train(afresh)
        FreezeHandle.of(afresh).verify()

    def test_a_leak_before_saving_shows_after_loading(self) -> None:
        net = model()
        freeze(net, {"encoder": "frozen"})
        net.encoder[0].weight.data.add_(1)
        state = net.state_dict()
        other = model()
        other.load_state_dict(state)
        with pytest.raises(FreezeError, match=r"encoder\.0\.weight \(bits differ"):
            refreeze(other, state).verify()

    def test_other_weights_without_a_contract_are_reported(self) -> None:
        net = model()
        handle = freeze(net, {"encoder": "frozen"})
        net.load_state_dict(dict(model().state_dict()))
        assert {c.name for c in handle.check().moved} >= {"encoder.0.weight", "encoder.0.bias"}

    def test_broken_metadata_is_refused(self) -> None:
        net = model()
        freeze(net, {"encoder": "frozen"})
        state = net.state_dict()
        for broken in ({"version": 9}, {"version": 1, "regions": 3}, "text"):
            state._metadata[""]["headstart.freeze"] = broken
            with pytest.raises(FreezeError, match="freeze contract"):
                refreeze(model(), state)
        with pytest.raises(FreezeError, match="no freeze contract"):
            refreeze(model(), model().state_dict())

    def test_a_part_of_a_larger_model(self) -> None:
        whole = nn.ModuleDict({"a": model(), "b": nn.Linear(2, 2)})
        freeze(whole["a"], {"encoder": "frozen"})
        state = copy.deepcopy(whole.state_dict())
        other = nn.ModuleDict({"a": model(), "b": nn.Linear(2, 2)})
        other.load_state_dict(state)
        refreeze(other, state).verify()
        assert FreezeHandle.of(other).model is other["a"]


def test_the_plan_prints_as_a_table() -> None:
    text = str(plan_freeze(model(), {"encoder": "frozen"}))
    assert "encoder  frozen" in text
    assert "1 running, fixed" in text
    assert "1 Dropout off" in text
    assert "no entry governs 'decoder.1.weight'" in text
