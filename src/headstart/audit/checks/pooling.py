"""Feature maps and tokens that are averaged over the wrong axes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from headstart.audit import replay
from headstart.audit.check import Check
from headstart.audit.events import Pass
from headstart.audit.records import Finding
from headstart.audit.rows import Source, ledger_of
from headstart.audit.scene import Scene
from headstart.core.arguments import Arguments
from headstart.modules.layout import find_layout
from headstart.modules.observing import tensors_in

MOST = 5
"""Class, distillation and register tokens that a network may put before its patches."""


class WrongPooling(Check):
    """A head learns from features that were averaged over channels, or with the class token."""

    code: ClassVar[str] = "wrong-pooling"
    cost: ClassVar[str] = "accuracy: what distinguishes the features is averaged away"

    def __init__(self) -> None:
        self.found: dict[tuple[int, str], tuple[Source, Pass]] = {}
        self.prefix: dict[int, int] = {}
        self.shapes: dict[tuple[int, ...], None] = {}

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Take note of outputs, and look up what a network is given."""
        if seen.failed:
            return
        ledger = ledger_of(scene)
        rows = replay.rows_of(seen)
        if rows is not None and seen.grad:
            source = ledger.source(rows.detach())
            if source is not None:
                self.found.setdefault((source.seen.network.number, source.way), (source, seen))
        ledger.note(seen)
        output = seen.output
        number = seen.network.number
        output = next(tensors_in(output), None)
        if output is not None and output.ndim == 4 and len(self.shapes) < 512:
            n, a, b, c = output.shape  # patches as (n, rows, columns, features), or the reverse
            self.shapes.update({(n, a * b, c): None, (n, b * c, a): None})
        if output is None or output.ndim != 3:
            return
        shape = tuple(output.shape)
        if number not in self.prefix:
            self.prefix[number] = self._added(shape) or _class_tokens(seen)
        if len(self.shapes) < 512:
            self.shapes[shape] = None

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every network whose output was pooled wrongly."""
        for (number, way), (source, user) in self.found.items():
            kind = scene.networks[number].kind
            if way in ("mean over 1, 2", "mean over 1, 3"):
                yield self.finding(
                    f"The feature maps of {kind}, (n, channels, height, width), are averaged over"
                    f" axes {way[-4:]}: channels among them. A head learns from the result"
                    f" (line {user.place.line}).",
                    place=source.seen.place,
                    confidence=0.95,
                    evidence={"averaged over": way[-4:], "right": "2, 3"},
                    fix="rows = maps.mean(dim=(2, 3))",
                )
            elif way == "mean over 1" and self.prefix.get(number, 0):
                count = self.prefix[number]
                yield self.finding(
                    f"The tokens of {kind} are averaged with its class token: the first {count} of"
                    f" them {'is' if count == 1 else 'are'} no patch.",
                    place=source.seen.place,
                    confidence=0.8,
                    evidence={"class tokens": count},
                    fix=f"rows = tokens[:, {count}:].mean(1)  # or tokens[:, 0]",
                )
            elif way == "mean over 2":
                yield self.finding(
                    f"The tokens of {kind}, (n, tokens, features), are averaged over the features.",
                    place=source.seen.place,
                    confidence=0.8,
                    evidence={"averaged over": "2", "right": "1"},
                    fix="rows = tokens.mean(1)",
                )

    def _added(self, shape: tuple[int, ...]) -> int:
        """Return how many tokens joined those that an earlier part of the network put out."""
        rows, tokens, width = shape
        return next(
            (many for many in range(1, MOST + 1) if (rows, tokens - many, width) in self.shapes), 0
        )


def _class_tokens(seen: Pass) -> int:
    """Return how many of the leading tokens of a network's output are no patches."""
    module, images = seen.network.module, replay.images_of(seen)
    if module is None or images is None:
        return 0
    try:
        layout = find_layout(module, None, Arguments((images[:3].detach(),)))
    except Exception:
        return 0
    return layout.prefix


__all__ = ["WrongPooling"]
