"""The families of backbones: how each builds a module and what its weights say of their input.

A family turns a name into a :class:`~headstart.backbones.families.base.Built`. To add one, write a
file with a build function and enter it in ``FAMILIES``.
"""

from headstart.backbones.families.base import Built, Family, Request
from headstart.backbones.families.bundled import build_glyphs
from headstart.backbones.families.timm_models import build_timm, timm_names
from headstart.backbones.families.torchvision_models import build_torchvision, torchvision_names
from headstart.backbones.families.user_file import build_file

FAMILIES: tuple[Family, ...] = (
    Family("headstart", "bundled with the package, no download", build_glyphs, lambda: ["glyphs"]),
    Family("timm", "weights and preprocessing from timm", build_timm, timm_names),
    Family(
        "torchvision",
        "weights and preprocessing from torchvision",
        build_torchvision,
        torchvision_names,
    ),
)

__all__ = ["FAMILIES", "Built", "Family", "Request", "build_file"]
