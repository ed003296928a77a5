"""Images are far smaller or larger than those the network was pre-trained on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import nn

from headstart.audit import replay
from headstart.audit.check import Check
from headstart.audit.events import Pass
from headstart.audit.records import Finding
from headstart.audit.scene import Scene

FAR = 2.0
"""Sizes that differ by this factor are far from each other."""


@dataclass
class _Size:
    seen: Pass
    given: tuple[int, int]
    recorded: tuple[int, int] | None
    tiny: str


class InputResolution(Check):
    """The input resolution is far from that of pre-training.

    The size of pre-training comes from the network's own record (``pretrained_cfg``). If there is
    none, convolutions that see a single position and are followed by learnt statistics show that
    the images are too small: all but the centre of such a kernel sees padding.
    """

    code: ClassVar[str] = "input-resolution"
    cost: ClassVar[str] = "accuracy: objects differ in size from those the features were learnt on"

    def __init__(self) -> None:
        self.sizes: dict[int, _Size] = {}

    def on_pass(self, seen: Pass, scene: Scene) -> None:
        """Take note of the size of the first images of every network."""
        number, module = seen.network.number, seen.network.module
        if number in self.sizes or seen.failed or module is None:
            return
        images = replay.images_of(seen)
        if images is None:
            return
        given = (int(images.shape[-2]), int(images.shape[-1]))
        self.sizes[number] = _Size(seen, given, recorded_size(module), _sees_one_position(seen))

    def finish(self, scene: Scene) -> Iterator[Finding]:
        """Yield one finding for every network whose images have another size."""
        for number, size in self.sizes.items():
            kind, side = scene.networks[number].kind, min(size.given)
            evidence: dict[str, Any] = {"given": list(size.given)}
            if size.recorded is not None:
                before = min(size.recorded)
                factor = max(side / before, before / side)
                if factor < FAR:
                    continue
                evidence["recorded"] = list(size.recorded)
                yield self.finding(
                    f"{kind} gets images of {size.given[0]}×{size.given[1]} pixels and was"
                    f" pre-trained at {size.recorded[0]}×{size.recorded[1]}.",
                    place=size.seen.place,
                    confidence=0.85,
                    evidence=evidence,
                    fix=f"x = torch.nn.functional.interpolate(x, size={size.recorded},"
                    ' mode="bicubic", antialias=True)',
                )
            elif size.tiny:
                yield self.finding(
                    f"Images of {size.given[0]}×{size.given[1]} pixels are too small for {kind}:"
                    f" its convolution {size.tiny} sees a single position, and otherwise padding.",
                    place=size.seen.place,
                    module=size.tiny,
                    confidence=0.8,
                    evidence=evidence,
                    fix="x = torch.nn.functional.interpolate(x, size=(224, 224),"
                    ' mode="bicubic", antialias=True)',
                )


def recorded_size(module: nn.Module) -> tuple[int, int] | None:
    """Return the size that a network says it was pre-trained at, ``(height, width)``."""
    config = recorded(module)
    size = None if config is None else config.get("input_size")
    if not isinstance(size, tuple | list) or len(size) != 3:
        return None
    return int(size[1]), int(size[2])


def recorded(module: nn.Module) -> Mapping[str, Any] | None:
    """Return what a network says about its pre-training; None if it says nothing.

    Only the network itself is asked, or the one thing it wraps.
    """
    for each in (module, *module.children()):
        config = getattr(each, "pretrained_cfg", None)
        if isinstance(config, Mapping) and "input_size" in config:
            return config
    return None


def _sees_one_position(seen: Pass) -> str:
    """Return the first convolution, of learnt features, that is given one position only."""
    learnt = any(replay.learnt_statistics(call.part) for call in seen.calls if call.part.running)
    if not learnt:
        return ""
    for call in seen.calls:
        module = call.part.ref()
        if call.shape is None or len(call.shape) != 4 or call.shape[2:] != (1, 1):
            continue
        if isinstance(module, nn.Conv2d) and max(module.kernel_size) > 1:
            return call.part.name
    return ""


__all__ = ["InputResolution", "recorded", "recorded_size"]
