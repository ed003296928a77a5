"""Hugging Face's Trainer: the freeze contract as a callback.

::

    from headstart.huggingface import Freeze

    trainer = Trainer(model, arguments, callbacks=[Freeze({"bert": "frozen"})], ...)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import nn

from headstart.core.errors import FreezeError, MissingExtraError
from headstart.freezing import FreezeHandle, Verification, freeze
from headstart.freezing.checkpoint import SavedContract, adopt

try:
    from transformers.trainer_callback import ExportableState, TrainerCallback
except ImportError:
    raise MissingExtraError("transformers", "transformers", "headstart.huggingface") from None

if TYPE_CHECKING:
    from headstart.freezing.governance import Spec


class Freeze(TrainerCallback, ExportableState):
    """Hold a model to the freeze contract while it trains, and prove it at the end.

    The model is frozen when the Trainer is made, before its optimizer is. The Trainer puts it into
    training mode before every step; what is frozen stays in evaluation mode all the same. The
    state of the Trainer keeps the digests: where a run is resumed, what was frozen is compared
    with what it was at the first start.

    Args:
        spec: what is frozen and how, as for :func:`headstart.freeze`; None: the model has been
            frozen already.
        every_epoch: verify after every epoch, too, which costs one digest of what is frozen.

    Attributes:
        handle: of the contract. It stays on the model after the training; ``handle.release()``
            ends it.
        verification: what the last comparison found.
    """

    def __init__(self, spec: Spec | None = None, *, every_epoch: bool = False) -> None:
        self.spec, self.every_epoch = spec, every_epoch
        self.handle: FreezeHandle | None = None
        self.verification: Verification | None = None
        self.contract: dict[str, Any] | None = None  # of the run that is resumed

    def on_init_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: ARG002
        """Freeze, when the Trainer is made.

        Raises:
            FreezeError: as for :func:`headstart.freeze`.
        """
        self._freeze(more.get("model"))

    def on_train_begin(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: ARG002
        """Freeze, where the callback was added later; take up the contract of a resumed run."""
        if self.handle is None:
            self._freeze(more.get("model"))
        saved = self._saved(state) if state.global_step else None
        if saved is not None and self.handle is not None:
            adopt(self.handle.model, SavedContract.from_plain(saved))

    def on_epoch_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: ARG002
        """Verify, where every epoch is to be verified."""
        if self.every_epoch:
            self._verify()

    def on_train_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:  # noqa: ARG002
        """Verify by digest.

        Raises:
            FreezeError: something that is frozen has moved; the message names it.
        """
        self._verify()

    def state(self) -> dict[str, Any]:
        """Return what the state of the Trainer keeps, and makes the callback of again."""
        saved = None if self.handle is None else SavedContract.of(self.handle.model).to_plain()
        return {"args": {"every_epoch": self.every_epoch}, "attributes": {"contract": saved}}

    def _saved(self, state: Any) -> Any:
        """Return the contract that the state of a resumed run has.

        The Trainer itself makes callbacks again from its state only if it is told to
        (``restore_callback_states_from_checkpoint``); ``contract`` is set then.
        """
        if self.contract is not None:
            return self.contract
        known = state.stateful_callbacks.get(type(self).__name__, {})
        first = known[0] if isinstance(known, list) and known else known
        return first.get("attributes", {}).get("contract") if isinstance(first, dict) else None

    def _freeze(self, model: nn.Module | None) -> None:
        if model is None:
            return
        self.handle = FreezeHandle.of(model) if self.spec is None else freeze(model, self.spec)

    def _verify(self) -> None:
        if self.handle is None:
            raise FreezeError(
                "the callback has not seen the start of the training",
                hint="give it to the Trainer: Trainer(..., callbacks=[Freeze(...)])",
            )
        self.verification = self.handle.verify()


__all__ = ["Freeze"]
