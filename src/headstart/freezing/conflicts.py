"""Policies that cannot be carried out together: by a layer, by tied tensors, by autograd."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from headstart.core.wording import quoted
from headstart.freezing.governance import Governance, autograd_tops, keeps_statistics
from headstart.modules import kinds, writers


def conflicts(plan: Governance) -> list[str]:
    """Return all reasons why the policies cannot be carried out together."""
    return [*_layers(plan), *_ties(plan), *_autograd(plan)]


def _layers(plan: Governance) -> Iterator[str]:
    unmade, batch_only, unknown, uncalibrated = [], [], [], []
    for name, policy in plan.governing.items():
        module = plan.named[name]
        own = [*module._parameters.values(), *module._buffers.values()]
        if any(tensor is not None and is_lazy(tensor) for tensor in own):
            unmade.append(name)
        if kinds.is_batch_only_norm(module) and policy.norm != "batch":
            batch_only.append(name)
        if keeps_statistics(module, policy) and not kinds.can_hold_statistics(module):
            unknown.append(name)
        if policy.parameters == "frozen" and writers.is_uncalibrated(module):
            uncalibrated.append(name or "the model")
    if uncalibrated:
        yield (
            f"{quoted(uncalibrated)} quantize by a range that they have not observed yet: run some"
            " batches through the model before freezing"
        )
    if unmade:
        yield f"{quoted(unmade)} are lazy: run one batch through the model before freezing"
    if batch_only:
        yield (
            f"{quoted(batch_only)} have no running statistics (track_running_stats=False) and"
            " always normalise by the batch: only norm='batch' describes them"
        )
    if unknown:
        yield (
            f"{quoted(unknown)} update their running statistics whenever they normalise by the"
            " batch: use norm='running', or norm_updates=True"
        )


def _ties(plan: Governance) -> Iterator[str]:
    """Find tensors that one policy freezes and another trains: tied ones, and shared memory."""
    tensors = plan.tensors
    frozen = {id(t.tensor): t.name for t in tensors if t.frozen}
    for tensor in tensors:
        if tensor.trainable and id(tensor.tensor) in frozen:
            other = frozen[id(tensor.tensor)]
            yield (
                f"{other!r} and {tensor.name!r} are one tensor (tied) and would be both frozen and"
                " trainable: give both parts the same parameters policy"
            )
    spans = sorted(
        (*_span(t.tensor), t.frozen, t.name)
        for t in {id(t.tensor): t for t in tensors if t.frozen or t.trainable}.values()
        if not is_lazy(t.tensor) and not t.tensor.is_meta and t.tensor.numel()
    )
    reached: dict[bool, tuple[int, str]] = {}  # the furthest byte so far, frozen and trainable
    for start, end, is_frozen, name in spans:
        other_end, other = reached.get(not is_frozen, (0, ""))
        if start < other_end:
            yield f"{other!r} and {name!r} share memory and would be both frozen and trainable"
        reached[is_frozen] = max(reached.get(is_frozen, (0, "")), (end, name))


def _span(tensor: Tensor) -> tuple[int, int]:
    """Return the first byte of a tensor and the one after its last."""
    reach = sum((s - 1) * abs(st) for s, st in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return start, start + (reach + 1) * tensor.element_size()


def _autograd(plan: Governance) -> Iterator[str]:
    training = [
        t.name
        for t in plan.tensors
        if t.trainable or (t.is_parameter and not t.governed and t.tensor.requires_grad)
    ]
    for top in sorted(autograd_tops(plan)):
        policy = plan.governing[top]
        label = repr(top) if top else "the model"
        below = [n for n in training if not top or n.startswith(top + ".")]
        if below:
            yield (
                f"{label} has autograd={policy.autograd!r} and holds {quoted(below, 3)}, which"
                " could never receive a gradient"
            )
        elif policy.autograd == "inference" and training:
            yield (
                f"{label} has autograd='inference' and {quoted(training, 3)} train in the same"
                " model: inference tensors cannot take part in training (use 'no_grad' or 'grad')"
            )
        upstream = [n for n in training if _precedes(plan.named, n, top)]
        if upstream and not below:
            yield (
                f"{label} has autograd={policy.autograd!r} and comes after {quoted(upstream, 3)},"
                " which would never receive a gradient through it (use 'grad')"
            )


def _precedes(named: Mapping[str, nn.Module], tensor: str, top: str) -> bool:
    """Whether a tensor's module runs before ``top`` for certain: earlier in a shared Sequential."""
    left, right = tensor.split("."), top.split(".")
    shared = 0
    while shared < min(len(left), len(right)) and left[shared] == right[shared]:
        shared += 1
    if not top or shared >= len(right) or shared >= len(left) - 1:
        return False
    parent = named[".".join(right[:shared])]
    order = list(parent._modules)
    return isinstance(parent, nn.Sequential) and order.index(left[shared]) < order.index(
        right[shared]
    )


__all__ = ["conflicts"]
