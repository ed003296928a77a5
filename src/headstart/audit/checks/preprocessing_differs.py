"""One network gets images that were preprocessed in two different ways."""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from headstart.audit import replay
from headstart.audit.check import Check
from headstart.audit.events import Pass
from headstart.audit.images import Images, explain
from headstart.audit.records import Finding, Place
from headstart.audit.scene import Scene

PASSES = 24
"""Passes that are looked at, by line and data loader."""
NETWORKS = 4
"""Passes that are run again, by network, to see what the networks inside are given."""
_Group = tuple[int, str, int | None, Place, bool]


class PreprocessingDiffers(Check):
    """Training, feature extraction, evaluation and serving do not share one preprocessing."""

    code: ClassVar[str] = "preprocessing-differs"
    cost: ClassVar[str] = "accuracy: the network is evaluated on inputs it was not trained for"

    def __init__(self) -> None:
        self.passes: dict[tuple[int, int | None, Place], list[tuple[Pass, int, Images]]] = {}
        self.replayed: dict[int, int] = {}
        self.generated: set[int] = set()
        """Networks that were given images that a network made: those are no data."""

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Measure the images of a pass, also for a network inside that ran by itself before."""
        images = replay.images_of(seen)
        module = seen.network.module
        if seen.failed or images is None or module is None or images.shape[1] not in (1, 3):
            return
        if images.requires_grad:
            self.generated.add(seen.network.number)
        key = (seen.network.number, seen.loader, seen.place)
        group = self.passes.setdefault(key, [])
        if len(group) >= PASSES:
            return
        group.append((seen, seen.network.number, Images.of(seen, images)))
        inside = {
            str(other.number): found
            for other in scene.networks[: seen.network.number]
            if (found := other.module) is not None
            and found is not module
            and any(call.part.ref() is found for call in seen.calls)
        }
        self.replayed[seen.network.number] = self.replayed.get(seen.network.number, 0) + 1
        if not inside or self.replayed[seen.network.number] > NETWORKS:
            return
        for number, given in replay.inputs_inside(seen, inside).items():
            if given.ndim == 4 and given.is_floating_point():
                group.append((seen, int(number), Images.of(seen, given)))

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every network whose images are made in two ways."""
        groups: dict[_Group, Images] = {}
        for (_, loader, place), passes in self.passes.items():
            for seen, number, images in passes:
                if seen.network.number in self.generated:
                    continue
                nested = seen.network.number != number
                key = (number, seen.purpose, loader, place, nested)
                groups[key] = groups[key].merge(images) if key in groups else images
        for number in dict.fromkeys(key[0] for key in groups):
            mine = sorted(
                ((key, images) for key, images in groups.items() if key[0] == number),
                key=lambda pair: pair[1].first.number,
            )
            found = next(
                (
                    (one, other, why)
                    for i, (one, first) in enumerate(mine)
                    for other, second in mine[i + 1 :]
                    if first.rows >= 4 and second.rows >= 4 and (why := explain(first, second))
                ),
                None,
            )
            if found is None:
                continue
            one, other, why = found
            yield self.finding(
                f"{scene.networks[number].kind} gets {why.before} for {_said(one)}"
                f" (line {one[3].line}), and {why.after} for {_said(other)}.",
                place=other[3],
                confidence=0.9,
                evidence={
                    "first": {"preprocessing": why.before, "line": one[3].line},
                    "second": {"preprocessing": why.after, "line": other[3].line},
                    "unlike, in nats": round(why.given, 3),
                    "unlike once explained": round(why.left, 4),
                },
                fix="normalise in one function, and call it everywhere",
            )


def _said(group: _Group) -> str:
    return "the network that is served" if group[4] else group[1]


__all__ = ["PreprocessingDiffers"]
