"""Feature maps or tokens are averaged over the wrong axes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from torch import Tensor

from headstart.audit import replay
from headstart.audit.axes import AxisTrace, Reduction, traced
from headstart.audit.check import Check
from headstart.audit.estimators import as_rows
from headstart.audit.events import Fit, Pass
from headstart.audit.facts import Network
from headstart.audit.records import Finding, Place
from headstart.audit.rows import Source, ledger_of
from headstart.audit.scene import Scene
from headstart.core.arguments import Arguments
from headstart.core.wording import format_shape
from headstart.modules.layout import find_layout
from headstart.modules.observing import tensors_in

NETWORKS, LOOKS = 8, 2
"""Networks whose axes are followed, and passes behind which they are."""
MOST = 5
"""Class, distillation and register tokens that a network may put before its patches."""


class WrongPooling(Check):
    """A head learns from features averaged over channels, or with the class token."""

    code: ClassVar[str] = "wrong-pooling"
    cost: ClassVar[str] = "accuracy: what distinguishes the features is averaged away"

    def __init__(self) -> None:
        self.found: dict[tuple[int, str], tuple[Source, int]] = {}
        self.prefix: dict[int, int] = {}
        self.shapes: dict[tuple[int, ...], None] = {}
        self.traces: dict[int, AxisTrace] = {}
        self.heads: dict[int, tuple[int, Place]] = {}

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Take note of outputs, and look up what a network is given."""
        if seen.failed:
            return
        ledger = ledger_of(scene)
        rows = replay.rows_of(seen)
        if rows is not None and seen.grad:
            self._given(rows.detach(), seen.place, scene)
        ledger.note(seen)
        output = next(tensors_in(seen.output), None)
        number = seen.network.number
        if number not in self.traces and len(self.traces) < NETWORKS:
            self.traces[number] = traced(seen, AxisTrace())
        trace = self.traces.get(number)
        if trace is not None and trace.on_output(output) and seen.network.passes <= LOOKS:
            scene.look_between(trace)
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

    def on_fit(self, seen: Fit, scene: Scene) -> None:
        """Look up what an estimator is fitted to."""
        rows = as_rows(seen.x)
        if rows is not None:
            self._given(rows, seen.place, scene)

    def _given(self, rows: Tensor, place: Place, scene: Scene) -> None:
        """Look up what something learns from."""
        source = ledger_of(scene).source(rows)
        if source is not None:
            known = self.found.get((source.seen.network.number, source.way))
            if known is None:
                self.found[source.seen.network.number, source.way] = (source, place.line)
        elif len(self.heads) < 64:
            self.heads.setdefault(int(rows.shape[1]), (scene.n_passes, place))

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every network whose output was pooled wrongly."""
        told: set[int] = set()
        for number, trace in self.traces.items():
            found = self._reduction(trace, scene.networks[number])
            if found is not None:
                told.add(number)
                yield self._averaged_away(scene.networks[number], *found)
        for (number, way), (source, line) in self.found.items():
            if number not in told:
                yield from self._from_rows(scene.networks[number], way, source, line)

    def _reduction(self, trace: AxisTrace, network: Network) -> tuple[Reduction, int] | None:
        """Return a reduction whose result something learns from, and the line that does."""
        for each in trace.wrong:
            if each.used:
                return each, 0
            head = self.heads.get(each.width)
            if head is not None and head[0] and each.width not in trace.widths:
                return each, head[1].line
        return None

    def _averaged_away(self, network: Network, found: Reduction, line: int) -> Finding:
        named = {"c": "channels", "h": "height", "w": "width", "t": "tokens", "n": "n"}
        axes = ", ".join(named.get(a, a) for a in found.axes)
        learns = f" (line {line})" if line else ""
        return self.finding(
            f"Features of {network.kind}, ({axes}) {format_shape(found.before)}, are averaged over"
            f" channels, and {found.width} positions remain. A head learns from them{learns}.",
            place=found.place,
            module=network.kind,
            confidence=0.9 if found.used else 0.8,
            evidence={"shape": list(found.before), "axes": list(found.axes), "left": found.width},
            fix="rows = maps.mean(dim=(2, 3))  # tokens: rows = tokens.mean(dim=1)",
        )

    def _from_rows(
        self, network: Network, way: str, source: Source, line: int
    ) -> Iterator[Finding]:
        if way in ("mean over 1, 2", "mean over 1, 3"):
            yield self.finding(
                f"The feature maps of {network.kind}, (n, channels, height, width), are averaged"
                f" over axes {way[-4:]}: channels among them. A head learns from the result"
                f" (line {line}).",
                place=source.seen.place,
                module=network.kind,
                confidence=0.95,
                evidence={"averaged over": way[-4:], "right": "2, 3"},
                fix="rows = maps.mean(dim=(2, 3))",
            )
        elif way == "mean over 1" and self.prefix.get(network.number, 0):
            count = self.prefix[network.number]
            yield self.finding(
                f"The tokens of {network.kind} are averaged with its class token: the first"
                f" {count} of them {'is' if count == 1 else 'are'} no patch.",
                place=source.seen.place,
                module=network.kind,
                confidence=0.8,
                evidence={"class tokens": count},
                fix=f"rows = tokens[:, {count}:].mean(1)  # or tokens[:, 0]",
            )
        elif way == "mean over 2":
            yield self.finding(
                f"The tokens of {network.kind}, (n, tokens, features), are averaged over the"
                " features.",
                place=source.seen.place,
                module=network.kind,
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
