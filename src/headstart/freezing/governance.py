"""Which policy governs which module and tensor of a model, and what speaks against it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from headstart.core.wording import quoted
from headstart.freezing.policy import FreezePolicy
from headstart.modules import kinds


@dataclass(frozen=True, eq=False)
class OwnedTensor:
    """A parameter or buffer, and what its policy makes of it.

    Attributes:
        name: its full name.
        owner: the name of the module that registers it.
        tensor: the tensor itself.
        is_parameter: whether it is a parameter rather than a buffer.
        frozen: whether it must not move.
        trainable: whether it is a parameter that trains.
        governed: whether any policy governs it.
    """

    name: str
    owner: str
    tensor: Tensor
    is_parameter: bool
    frozen: bool
    trainable: bool
    governed: bool


@dataclass(frozen=True, eq=False)
class Governance:
    """The policies of a model, spelt out.

    Attributes:
        named: every name of every module, parents first.
        direct: the policies of the parts that selectors name.
        governing: the policy of every governed module name.
        tensors: every parameter and buffer, under each of its names.
    """

    named: Mapping[str, nn.Module]
    direct: Mapping[str, FreezePolicy]
    governing: Mapping[str, FreezePolicy]
    tensors: tuple[OwnedTensor, ...]


def govern(
    named: Mapping[str, nn.Module],
    direct: Mapping[str, FreezePolicy],
    governing: Mapping[str, FreezePolicy],
) -> Governance:
    """Work out what the policies make of every tensor."""
    return Governance(named, direct, governing, tuple(_tensors(named, governing)))


def _tensors(
    named: Mapping[str, nn.Module], governing: Mapping[str, FreezePolicy]
) -> Iterator[OwnedTensor]:
    for owner, module in named.items():
        policy = governing.get(owner)
        prefix = f"{owner}." if owner else ""
        norm, running = kinds.is_norm(module), kinds.running_buffers(module)
        for key, parameter in module._parameters.items():
            if parameter is None:
                continue
            trains = policy is not None and (
                policy.affine_trainable if norm else policy.parameters == "trainable"
            )
            # Only numbers that can carry a gradient train; quantised or integer ones cannot.
            trains = trains and (parameter.is_floating_point() or parameter.is_complex())
            frozen = policy is not None and not trains
            yield OwnedTensor(
                prefix + key, owner, parameter, True, frozen, trains, policy is not None
            )
        for key, buffer in module._buffers.items():
            if buffer is None:
                continue
            if policy is None:
                frozen = False
            elif key in running:
                frozen = not policy.norm_updates or kinds.is_constant_norm(module)
            else:
                frozen = policy.parameters == "frozen"
            yield OwnedTensor(prefix + key, owner, buffer, False, frozen, False, policy is not None)


def autograd_tops(plan: Governance) -> frozenset[str]:
    """Return the modules whose forward is wrapped: the tops, or what a bare list holds."""
    tops: set[str] = set()
    queue = [name for name in plan.direct if plan.governing[name].autograd != "grad"]
    while queue:
        name = queue.pop()
        if isinstance(plan.named[name], nn.ModuleList | nn.ModuleDict):
            prefix = f"{name}." if name else ""
            queue += [prefix + child for child, _ in plan.named[name].named_children()]
        else:
            tops.add(name)
    return frozenset(tops)


def faults(plan: Governance) -> list[str]:
    """Return everything that speaks against carrying the policies out."""
    return [*_layer_faults(plan), *_tie_faults(plan), *_autograd_faults(plan)]


def keeps_statistics(module: nn.Module, policy: FreezePolicy) -> bool:
    """Whether a module is to normalise by the batch while its running statistics stay."""
    batch = policy.norm == "batch" and not policy.norm_updates
    return batch and kinds.is_running_norm(module) and not kinds.is_constant_norm(module)


def _layer_faults(plan: Governance) -> Iterator[str]:
    unmade, batch_only, unknown = [], [], []
    for name, policy in plan.governing.items():
        module = plan.named[name]
        own = [*module._parameters.values(), *module._buffers.values()]
        if any(tensor is not None and is_lazy(tensor) for tensor in own):
            unmade.append(name)
        if kinds.is_batch_only_norm(module) and policy.norm != "batch":
            batch_only.append(name)
        if keeps_statistics(module, policy) and not kinds.can_hold_statistics(module):
            unknown.append(name)
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


def _tie_faults(plan: Governance) -> Iterator[str]:
    """Find tensors that one policy freezes and another trains: tied ones, and shared memory."""
    tensors = plan.tensors
    frozen = {id(t.tensor): t.name for t in tensors if t.frozen}
    for tensor in tensors:
        if tensor.trainable and id(tensor.tensor) in frozen:
            other = frozen[id(tensor.tensor)]
            yield (
                f"{other!r} and {tensor.name!r} are one tensor (tied), and would be frozen and"
                " trainable at once: give both parts the same parameters policy"
            )
    spans = sorted(
        (*_span(t.tensor), t.frozen, t.name)
        for t in {id(t.tensor): t for t in tensors if t.frozen or t.trainable}.values()
        if not is_lazy(t.tensor) and not t.tensor.is_meta and t.tensor.numel()
    )
    reached: dict[bool, tuple[int, str]] = {}  # the furthest byte so far, of either kind
    for start, end, is_frozen, name in spans:
        other_end, other = reached.get(not is_frozen, (0, ""))
        if start < other_end:
            yield f"{other!r} and {name!r} share memory, and would be frozen and trainable at once"
        reached[is_frozen] = max(reached.get(is_frozen, (0, "")), (end, name))


def _span(tensor: Tensor) -> tuple[int, int]:
    """Return the first byte of a tensor and the one after its last."""
    reach = sum((s - 1) * abs(st) for s, st in zip(tensor.shape, tensor.stride(), strict=True))
    start = tensor.data_ptr()
    return start, start + (reach + 1) * tensor.element_size()


def _autograd_faults(plan: Governance) -> Iterator[str]:
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


__all__ = ["Governance", "OwnedTensor", "autograd_tops", "faults", "govern", "keeps_statistics"]
