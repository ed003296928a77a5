"""What is frozen in a stage: which tensors do not move, and which mode every module trains in."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from torch import Tensor, nn

from headstart.core.errors import FreezeError
from headstart.core.wording import did_you_mean, quoted
from headstart.freezing import FreezeHandle, FreezePlan
from headstart.modules.digests import named_tensors

Frozen = Callable[[str], bool] | Mapping[str, bool] | FreezeHandle | FreezePlan


@dataclass(frozen=True, eq=False)
class Terms:
    """What is frozen in a stage, on one model.

    Attributes:
        names: every parameter and buffer with its first name, by identity.
        frozen: the identities of those that do not move, and share memory with none that does.
        held: modules in evaluation mode while the model trains, of a plan that has not been applied
            yet; None: ``model.train()`` itself shows it.
    """

    names: Mapping[int, str]
    frozen: frozenset[int]
    held: frozenset[int] | None

    def moving(self, tensors: list[Tensor]) -> list[str]:
        """Return the names of those that may move."""
        return [self.names.get(id(t), "a tensor") for t in tensors if id(t) not in self.frozen]

    def train(self, model: nn.Module) -> None:
        """Put the model in the mode in which the stage trains it."""
        if self.held is None:
            model.train()
            return
        for part in model.modules():
            part.training = id(part) not in self.held


def read_terms(model: nn.Module, frozen: Frozen) -> Terms:
    """Read what is frozen from any of its forms.

    Args:
        model: the model.
        frozen: the handle of :func:`headstart.freeze`; a plan that has not been applied yet; a
            function from the name of a parameter or buffer to whether it stays; or a mapping
            from names of tensors or modules to that, of which the longest name wins. With the
            latter two, modes are those that ``model.train()`` sets.

    Raises:
        FreezeError: the model is not that of the handle, a name matches nothing, or something
            that is said to be frozen has ``requires_grad`` on.
    """
    tensors = list(named_tensors(model))
    held: frozenset[int] | None = None
    if isinstance(frozen, FreezeHandle | FreezePlan):
        plan = frozen.plan if isinstance(frozen, FreezeHandle) else frozen
        root = frozen.model if isinstance(frozen, FreezeHandle) else model
        if all(part is not root for part in model.modules()):
            raise FreezeError(
                f"the handle is that of another {type(root).__name__}, not a part of this"
                f" {type(model).__name__}",
                hint="pass the model that was frozen",
            )
        governed = dict(named_tensors(root))
        missing = [name for name in plan.frozen if name not in governed]
        if missing:
            raise FreezeError(f"the plan names {quoted(missing, 3)}, which the model does not have")
        still = {id(governed[name]) for name in plan.frozen}
        if isinstance(frozen, FreezePlan):
            modules = dict(root.named_modules())
            held = frozenset(id(modules[i.name]) for i in plan.intents if i.held)
    else:
        decide = _reader(model, frozen) if isinstance(frozen, Mapping) else frozen
        moving = {id(t) for name, t in tensors if not decide(name)}
        still = {id(t) for _, t in tensors} - moving
        _refuse_trainable(tensors, still)
    names: dict[int, str] = {}
    for name, tensor in tensors:
        names.setdefault(id(tensor), name)
    return Terms(names, _apart(tensors, still), held)


def _reader(model: nn.Module, frozen: Mapping[str, bool]) -> Callable[[str], bool]:
    known = {name for name, _ in model.named_modules(remove_duplicate=False)}
    known |= {name for name, _ in named_tensors(model)}
    wrong = [name for name in frozen if name not in known]
    if wrong:
        raise FreezeError(
            f"{quoted(wrong, 3)} is no parameter, buffer or module of the model",
            hint=did_you_mean(wrong[0], known),
        )

    def decide(name: str) -> bool:
        parts = name.split(".")
        prefixes = (".".join(parts[:end]) for end in range(len(parts), -1, -1))
        return next((frozen[prefix] for prefix in prefixes if prefix in frozen), False)

    return decide


def _refuse_trainable(tensors: list[tuple[str, Tensor]], still: set[int]) -> None:
    wrong = [name for name, t in tensors if id(t) in still and t.requires_grad]
    if wrong:
        raise FreezeError(
            f"{quoted(wrong, 3)} are said to be frozen and have requires_grad on",
            hint="freeze them first: headstart.freeze(model, ...), or pass the plan of"
            " headstart.plan_freeze",
        )


def _apart(tensors: list[tuple[str, Tensor]], still: set[int]) -> frozenset[int]:
    """Leave out tensors that share memory with one that moves."""
    moving = {
        t.untyped_storage().data_ptr() for _, t in tensors if id(t) not in still and t.numel()
    }
    return frozenset(
        id(t)
        for _, t in tensors
        if id(t) in still and (not t.numel() or t.untyped_storage().data_ptr() not in moving)
    )


__all__ = ["Frozen", "Terms", "read_terms"]
