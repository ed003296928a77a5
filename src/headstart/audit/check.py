"""The one interface of all checks: what it wants to see, and what it says in the end."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from headstart.audit.records import NOWHERE, Finding, Place, Severity

if TYPE_CHECKING:
    from headstart.audit.events import Backward, Batch, Fit, Load, Loss, Pass, Split, Step
    from headstart.audit.facts import ModeCall
    from headstart.audit.scene import Scene


class Check:
    """A kind of finding. Subclass it in a file of its own, and enter it in ``CHECKS``.

    One instance is made for every audit. Override the events that it needs, gather plain figures,
    and say what was found in :meth:`finish`. Rules:

    * Decide by what runs, never by the names of files, variables or classes of the user.
    * Keep figures, not tensors or modules: an audit must not keep a network alive.
    * Change nothing: no random numbers, no modes, no gradients. What has to run again runs inside
      of :func:`headstart.audit.measuring.trial`.
    * :meth:`finish` may be called several times, and a correct script gets nothing worse than
      ``info``.
    """

    code: ClassVar[str]
    """Names the finding, and its page ``docs/findings/CODE.md``."""
    severity: ClassVar[Severity] = "warning"
    """That of its findings, unless one says otherwise."""
    cost: ClassVar[str] = ""
    """What it costs, unless a finding says otherwise."""

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """A pass of a network has ended; ``seen.trained`` is not known yet."""

    def on_loss(self, seen: Loss, scene: Scene) -> None:
        """A loss was computed."""

    def on_backward(self, seen: Backward, scene: Scene) -> None:
        """A backward pass has ended."""

    def before_step(self, seen: Step, scene: Scene) -> None:
        """An optimizer is about to step."""

    def after_step(self, seen: Step, scene: Scene) -> None:
        """An optimizer has stepped."""

    def on_batch(self, seen: Batch, scene: Scene) -> None:
        """A data loader has given out a batch."""

    def on_mode(self, seen: ModeCall, scene: Scene) -> None:
        """``train()`` or ``eval()`` is about to act, on a module and everything inside of it."""

    def on_load(self, seen: Load, scene: Scene) -> None:
        """A state dict has been loaded into a module."""

    def on_fit(self, seen: Fit, scene: Scene) -> None:
        """An estimator of scikit-learn is about to be fitted."""

    def on_split(self, seen: Split, scene: Scene) -> None:
        """A splitter of scikit-learn has divided data."""

    def on_crash(self, error: BaseException, scene: Scene) -> None:
        """The script has raised an exception that it did not catch; ``finish`` follows."""

    def finish(self, scene: Scene) -> Iterable[Finding]:
        """Yield the findings, from what was gathered."""
        raise NotImplementedError

    def finding(
        self,
        message: str,
        *,
        place: Place = NOWHERE,
        module: str = "",
        severity: Severity | None = None,
        confidence: float = 0.9,
        evidence: dict[str, Any] | None = None,
        cost: str | None = None,
        fix: str = "",
    ) -> Finding:
        """Return a finding of this kind."""
        return Finding(
            code=self.code,
            severity=self.severity if severity is None else severity,
            confidence=confidence,
            module=module,
            file=place.file,
            line=place.line,
            message=message,
            evidence=evidence or {},
            cost=self.cost if cost is None else cost,
            fix=fix,
        )


EVENTS = (
    "on_pass",
    "on_loss",
    "on_backward",
    "before_step",
    "after_step",
    "on_batch",
    "on_mode",
    "on_load",
    "on_fit",
    "on_split",
)
"""The events that the observer tells; a check is called only for those that it overrides."""


__all__ = ["EVENTS", "Check"]
