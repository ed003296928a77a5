"""Tensors made under ``inference_mode`` reach a computation that autograd has to record."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from headstart.audit.check import Check
from headstart.audit.events import Pass
from headstart.audit.places import is_library
from headstart.audit.records import Finding, Place
from headstart.modules.observing import tensors_in

if TYPE_CHECKING:
    from headstart.audit.scene import Scene

_MESSAGE = "nference tensor"
"""What torch says in its errors about them."""


class InferenceTensors(Check):
    """PyTorch refuses to save them for the backward pass."""

    code = "inference-tensors-in-autograd"
    severity = "error"
    cost = "training stops with an error, or no gradient reaches the layers that made these tensors"

    def __init__(self) -> None:
        self.seen: dict[int, tuple[Pass, list[int]]] = {}
        self.crash: tuple[Place, str] | None = None

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Look at what trainable networks are given."""
        module = seen.network.module
        if not seen.grad or seen.inference or module is None or seen.network.number in self.seen:
            return
        given = next((t for t in tensors_in([seen.args, seen.kwargs]) if t.is_inference()), None)
        if given is not None and any(p.requires_grad for p in module.parameters()):
            self.seen[seen.network.number] = (seen, list(given.shape))

    def on_crash(self, error: BaseException, scene: Scene) -> None:
        """Remember an error that says so."""
        if isinstance(error, RuntimeError) and _MESSAGE in str(error):
            trace, place = error.__traceback__, None
            while trace is not None:
                file = trace.tb_frame.f_code.co_filename
                if not is_library(file):
                    place = Place(file, trace.tb_lineno)
                trace = trace.tb_next
            self.crash = (place or Place("", 0), " ".join(str(error).split()))

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for each network, or one for the crash."""
        for seen, shape in self.seen.values():
            failed = seen.failed or self.crash is not None
            yield self.finding(
                f"{seen.network.kind} was given a tensor {tuple(shape)} made under"
                " torch.inference_mode() while autograd was on"
                + ("; torch refuses to save it for the backward pass" if failed else ""),
                place=seen.place,
                module=seen.network.kind,
                severity=None if failed else "info",
                confidence=0.99 if failed else 0.5,
                evidence={"shape": shape, "error": None if self.crash is None else self.crash[1]},
                fix="with torch.no_grad():  # instead of inference_mode, where tensors are made",
            )
        if self.crash is not None and not self.seen:
            place, text = self.crash
            yield self.finding(
                f"A tensor made under torch.inference_mode() reached autograd: {text[:160]}",
                place=place,
                confidence=0.99,
                evidence={"error": text},
                fix="with torch.no_grad():  # instead of inference_mode, where tensors are made",
            )


__all__ = ["InferenceTensors"]
