"""The head of a linear probe starts from embeddings, such as those of the class names."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor, nn

from headstart.audit import replay
from headstart.audit.check import Check
from headstart.audit.checks.feature_scale import first_trained
from headstart.audit.events import Load, Pass
from headstart.audit.records import Finding
from headstart.audit.rows import ledger_of
from headstart.modules.observing import tensors_in

if TYPE_CHECKING:
    from headstart.audit.scene import Scene

SAME = 0.999
"""Cosine from which a weight vector is an embedding; at random it is near 0."""
MOST = 512
"""Embeddings that are kept of each width."""
WIDTHS = 8


@dataclass(frozen=True)
class _Started:
    seen: Pass
    layer: str
    classes: int
    source: Pass


class HeadFromEmbeddings(Check):
    """The head's weights are outputs of another network, such as text embeddings of the classes.

    What is measured is then a zero-shot classifier that was trained further, not a linear probe.
    """

    code: ClassVar[str] = "head-from-embeddings"
    cost: ClassVar[str] = (
        "the comparison: with few labels, a probe that knows the classes does better"
    )

    def __init__(self) -> None:
        self.rows: dict[int, list[tuple[Pass, Tensor]]] = {}
        self.looked: set[int] = set()
        self.loaded: set[int] = set()
        self.found: list[_Started] = []

    def on_load(self, seen: Load, scene: Scene) -> None:
        """Weights that are loaded are those of a checkpoint."""
        if seen.module is not None:
            self.loaded.add(id(seen.module))

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Keep embeddings, and compare the first weights of a head with them."""
        if seen.failed:
            return
        if seen.grad and seen.network.number not in self.looked:
            self._look(seen, scene)
        output = next(tensors_in(seen.output), None)
        if output is None or output.ndim != 2 or not output.is_floating_point():
            return
        width = int(output.shape[1])
        if width not in self.rows and len(self.rows) >= WIDTHS:
            return
        kept = self.rows.setdefault(width, [])
        if sum(len(rows) for _, rows in kept) < MOST:
            few = _unit(output.detach()[:MOST])
            # Several prompts of one class are averaged.
            kept.append((seen, torch.cat([few, _unit(few.mean(0, keepdim=True))]).cpu()))

    def _look(self, seen: Pass, scene: Scene) -> None:
        found = first_trained(seen)
        if found is None:
            return
        self.looked.add(seen.network.number)
        call, module, _ = found
        if not isinstance(module, nn.Linear) or id(module) in self.loaded or scene.steps:
            return
        weights = _unit(module.weight.detach()).cpu()
        given = replay.rows_of(seen)
        own = None if given is None else ledger_of(scene).source(given.detach())
        for source, rows in self._by_network(int(weights.shape[1])):
            if own is not None and source.network is own.seen.network:
                continue
            if source.network is seen.network or len(weights) < 2:
                continue
            best, at = (weights @ rows.T).max(1)
            if bool((best > SAME).all()) and len(set(at.tolist())) == len(weights):
                self.found.append(_Started(seen, call.part.name, len(weights), source))
                return

    def _by_network(self, width: int) -> Iterator[tuple[Pass, Tensor]]:
        groups: dict[int, list[tuple[Pass, Tensor]]] = {}
        for seen, rows in self.rows.get(width, []):
            groups.setdefault(seen.network.number, []).append((seen, rows))
        for group in groups.values():
            yield group[0][0], torch.cat([rows for _, rows in group])

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every head that was trained."""
        for start in self.found:
            if start.seen.purpose != "training":
                continue
            source = start.source
            yield self.finding(
                f"All {start.classes} weight vectors of the head are embeddings computed by"
                f" {source.network.kind} (line {source.place.line}), such as those of the class"
                " names. This is not a linear probe, which starts from random weights.",
                place=start.seen.place,
                module=start.layer or start.seen.network.kind,
                confidence=0.75,
                evidence={
                    "classes": start.classes,
                    "embeddings of": source.network.kind,
                    "at line": source.place.line,
                },
                fix="torch.nn.Linear(width, classes)  # or report it as fine-tuned zero-shot",
            )


def _unit(rows: Tensor) -> Tensor:
    return nn.functional.normalize(rows.float(), dim=1)


__all__ = ["HeadFromEmbeddings"]
