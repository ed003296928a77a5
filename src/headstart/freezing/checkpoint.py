"""The contract as part of a checkpoint.

It is stored in the metadata of ``state_dict()`` (``_metadata``, where torch keeps module versions):
no key is added, ``torch.save`` and ``torch.load`` with ``weights_only=True`` preserve it, and a
model without a contract ignores it. Formats that store tensors only, such as safetensors, lose it.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from headstart.core.errors import FreezeError
from headstart.freezing import contract as contracting
from headstart.freezing.contract import contract_on
from headstart.freezing.plan import plan_freeze
from headstart.freezing.policy import FreezePolicy
from headstart.modules.digests import named_tensors, record

_KEY = "headstart.freeze"
_LOADING = "_headstart_loading"
_VERSION = 1


@dataclass(frozen=True)
class SavedContract:
    """A contract as stored in a checkpoint.

    Attributes:
        regions: the parts and their policies.
        digests: the digests of the frozen tensors at the freeze, not at saving, so that a leak
            before the checkpoint shows after it.
    """

    regions: dict[str, FreezePolicy]
    digests: dict[str, str]

    def to_plain(self) -> dict[str, Any]:
        """Return plain values, which every checkpoint format with metadata can store."""
        regions = {part: policy.describe() for part, policy in self.regions.items()}
        return {"version": _VERSION, "regions": regions, "digests": dict(self.digests)}

    @classmethod
    def of(cls, root: nn.Module) -> SavedContract:
        """Return the contract on a module as a checkpoint has it.

        Raises:
            FreezeError: there is none.
        """
        contract = contract_on(root)
        if contract is None:
            raise FreezeError("the contract on this model was released", hint="freeze it again")
        digests = {name: before.digest for name, before in contract.records.items()}
        return cls(contract.plan.regions, digests)

    @classmethod
    def from_plain(cls, value: Any) -> SavedContract:
        """Parse what :meth:`to_plain` returned.

        Raises:
            FreezeError: the value is from another version, or not a contract.
        """
        version = value.get("version") if isinstance(value, dict) else None
        if version != _VERSION:
            raise FreezeError(
                f"the checkpoint's freeze contract has version {version!r}, expected {_VERSION}",
                hint="load it with the version of headstart that wrote it, or freeze again",
            )
        try:
            regions = {str(p): FreezePolicy(**axes) for p, axes in value["regions"].items()}
            digests = {str(name): str(text) for name, text in value["digests"].items()}
        except (KeyError, TypeError, AttributeError) as error:
            raise FreezeError(
                f"the checkpoint's freeze contract cannot be read ({error})", hint="freeze again"
            ) from error
        return cls(regions, digests)


def find(state_dict: Mapping[str, Any]) -> tuple[str, SavedContract]:
    """Return the name of the part with a checkpoint's contract, and the contract.

    Raises:
        FreezeError: there is none, or there are several.
    """
    metadata = getattr(state_dict, "_metadata", None) or {}
    found = [(part, entry[_KEY]) for part, entry in metadata.items() if _KEY in entry]
    if len(found) != 1:
        count = "no freeze contract" if not found else f"{len(found)} freeze contracts"
        raise FreezeError(
            f"the checkpoint holds {count}, expected one",
            hint="pass the state_dict exactly as torch.load returned it, or freeze again",
        )
    part, plain = found[0]
    return part, SavedContract.from_plain(plain)


def hook(model: nn.Module) -> None:
    """Make ``state_dict`` of this module write the contract, and ``load_state_dict`` read it."""
    unhook(model)
    # The underscored registration functions are the ones that every torch since 2.4 has.
    model._register_state_dict_hook(_write)  # type: ignore[no-untyped-call]
    model._register_load_state_dict_pre_hook(  # type: ignore[no-untyped-call]
        _note, with_module=True
    )
    model.register_load_state_dict_post_hook(_take)  # type: ignore[no-untyped-call]


def unhook(model: nn.Module) -> None:
    """Remove the hooks of :func:`hook`, also from a copy of the module they were registered on."""
    for hooks in (
        model._state_dict_hooks,
        model._load_state_dict_pre_hooks,
        model._load_state_dict_post_hooks,
    ):
        ours = [k for k, f in hooks.items() if getattr(f, "hook", f) in (_write, _note, _take)]
        for key in ours:
            del hooks[key]


def adopt(root: nn.Module, saved: SavedContract) -> None:
    """Adopt the contract of a checkpoint: its parts and policies, and its digests."""
    current = contract_on(root)
    if current is None or current.plan.regions != saved.regions:
        plan = plan_freeze(root, saved.regions)
        records = contracting.take_records(root, plan)
        if current is not None:
            warnings.warn(
                "the checkpoint has another freeze plan than the model; the checkpoint's applies"
                " now. To set another, call headstart.freeze after loading",
                stacklevel=2,
            )
            contracting.remove(root, current)
        current = contracting.apply(root, plan, records)
    tensors = dict(named_tensors(root))
    for name, digest in saved.digests.items():
        if name in current.records:
            fresh = record(tensors[name])
            # If the loaded tensor is not the one that was frozen, it moved before saving. Its
            # original values are unknown here, so only the digest can reveal that.
            known = fresh.digest == digest
            current.records[name] = fresh if known else replace(fresh, digest=digest, sample=None)


def _write(module: nn.Module, _state: Any, _prefix: str, local_metadata: dict[str, Any]) -> None:
    if contract_on(module) is not None:
        local_metadata[_KEY] = SavedContract.of(module).to_plain()


def _note(
    module: nn.Module, _state: Any, _prefix: str, local_metadata: dict[str, Any], *_: Any
) -> None:
    if _KEY in local_metadata:
        module.__dict__[_LOADING] = local_metadata[_KEY]


def _take(module: nn.Module, _incompatible: Any) -> None:
    plain = module.__dict__.pop(_LOADING, None)
    if plain is not None:
        adopt(module, SavedContract.from_plain(plain))


__all__ = ["SavedContract", "adopt", "find", "hook", "unhook"]
