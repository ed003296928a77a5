"""The table of families of backbones, and those that come with the package, one file each.

To add a family, write a file here that defines a :class:`~headstart.backbones.family.Family`, and
enter it at the end of this one; from outside the package, call :func:`register_family`. Nothing
else names families: loading, listing, help texts, freezing and learning rates read this table.

Families import their libraries when they are used: listing the families loads none.
"""

from pathlib import Path

from headstart.backbones.families.bundled import BUNDLED
from headstart.backbones.families.hf_models import HF
from headstart.backbones.families.keras_models import KERAS
from headstart.backbones.families.open_clip_models import OPEN_CLIP
from headstart.backbones.families.static import STATIC
from headstart.backbones.families.timm_models import TIMM
from headstart.backbones.families.torchvision_models import TORCHVISION
from headstart.backbones.families.user_file import USER_FILE
from headstart.backbones.family import Family
from headstart.core.errors import BackboneError
from headstart.core.wording import any_of

_FAMILIES: dict[str, Family] = {}


def register_family(family: Family) -> None:
    """Add a family; one with a known name is replaced."""
    _FAMILIES[family.name] = family


def families() -> tuple[Family, ...]:
    """Return the families in the order in which they were registered."""
    return tuple(_FAMILIES.values())


def family_of(source: str) -> tuple[Family, str]:
    """Return the family that a source belongs to, and its name there.

    Raises:
        BackboneError: it belongs to none.
    """
    if source == "auto":
        raise BackboneError(
            "'auto' chooses a backbone from the data, and there are no data here",
            hint="name one, such as headstart/photos",
        )
    for family in families():
        name = family.claimed(source)
        if name is not None:
            return family, name
    if (Path(source).expanduser() / "config.json").is_file():
        raise BackboneError(
            f"'{source}' is not the name of a backbone",
            hint=f"for a transformers model, write hf/{source}",
        )
    raise BackboneError(
        f"'{source}' is not the name of a backbone",
        hint=f"write {any_of(family.form for family in families())}",
    )


def in_folder(source: str, weights: str | Path | None) -> tuple[str, str | Path | None]:
    """Return a source that names a folder by its absolute path, which every process finds.

    Args:
        source: of a backbone.
        weights: a file or folder of weights; the folder of a model becomes part of the source.

    Returns:
        The source and what is left of the weights; unchanged where no folder is named.
    """
    for family in families():
        name = family.claimed(source)
        if name is None:
            continue
        if family.folder is None:
            break
        try:
            folder = family.folder(name) if weights is None else Path(weights).expanduser()
            if folder is not None and folder.is_dir():
                return f"{family.name}/{folder.absolute()}", None
        except (OSError, RuntimeError):  # no path, or the home of an unknown user
            break
    return source, weights


def whole_file(source: str) -> str | None:
    """Return the name of the backbone whose file of weights a source is; None if it is none."""
    for family in families():
        if family.suffix and source.endswith(family.suffix):
            return f"{family.name}/model"
    return None


for _family in (BUNDLED, TIMM, TORCHVISION, KERAS, HF, OPEN_CLIP, STATIC, USER_FILE):
    register_family(_family)

__all__ = ["families", "family_of", "in_folder", "register_family", "whole_file"]
