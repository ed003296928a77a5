"""``headstart/glyphs``: the backbone in the package."""

from __future__ import annotations

from headstart.backbones.family import Built, Family, Request, bad_arguments
from headstart.core.errors import BackboneError


def build_glyphs(request: Request) -> Built:
    """Build the bundled backbone; it takes no arguments and needs no download."""
    from headstart.backbones.glyphs import BLOCKS, GlyphNet, glyphs_metadata, load_glyphs

    if request.name != "glyphs":
        raise BackboneError(
            f"there is no bundled backbone 'headstart/{request.name}'",
            hint="the bundled one is headstart/glyphs",
        )
    try:
        module = (
            GlyphNet(**request.model_args)
            if request.weights is not None or request.model_args
            else load_glyphs()
        )
    except TypeError as error:
        raise bad_arguments("headstart/glyphs", error) from error
    if request.model_args and request.weights is None:
        raise BackboneError(
            "headstart/glyphs with other model arguments has no pre-trained weights",
            hint="pass weights='FILE', or leave model_args out",
        )
    return Built(module, glyphs_metadata()["preprocessing"], BLOCKS)


BUNDLED = Family(
    "headstart",
    "headstart/glyphs",
    "bundled with the package, no download",
    build_glyphs,
    names=lambda: ("glyphs",),
)
