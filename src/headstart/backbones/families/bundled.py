"""``headstart/...``: the backbones whose weights are installed with the package."""

from __future__ import annotations

from collections.abc import Callable

from headstart.backbones.families.timm_models import blocks_of, timm_groups
from headstart.backbones.family import (
    NOTHING_STATED,
    About,
    Built,
    Classifier,
    Family,
    Request,
    bad_arguments,
    unknown,
)
from headstart.core.errors import BackboneError

_NAMES = ("glyphs", "photos", "photos-lite2")


def build_bundled(request: Request) -> Built:
    """Build a bundled backbone; nothing is downloaded.

    Raises:
        BackboneError: there is none of this name, its weights are not installed, or they are not
            those that were published.
    """
    if request.name not in _NAMES:
        raise unknown("headstart", request.name, _NAMES)
    try:
        return _glyphs(request) if request.name == "glyphs" else _photos(request)
    except TypeError as error:
        raise bad_arguments(f"headstart/{request.name}", error) from error


def about_bundled(name: str) -> About:
    """Return what the weights of a bundled backbone are; nothing is loaded."""
    if name == "glyphs":
        return _GLYPHS
    from headstart.backbones.photos import PUBLISHED

    return PUBLISHED[name].about


_GLYPHS = About(
    licence="Apache-2.0",
    origin="headstart's own (scripts/pretrain_glyphs.py, 1.2 MB)",
    data="Omniglot",
    made_for=("drawings",),
)


def _glyphs(request: Request) -> Built:
    from headstart.backbones.glyphs import BLOCKS, GlyphNet, glyphs_metadata, load_glyphs

    own = request.weights is not None
    if request.model_args and not own:
        GlyphNet(**request.model_args)  # what it does not take is said first
        raise BackboneError(
            "headstart/glyphs with other model arguments has no pre-trained weights",
            hint="pass weights='FILE', or omit model_args",
        )
    module = GlyphNet(**request.model_args) if own else load_glyphs()
    about = NOTHING_STATED if own else _GLYPHS
    return Built(module, glyphs_metadata()["preprocessing"], BLOCKS, about=about)


def _photos(request: Request) -> Built:
    from headstart.backbones.photos import PUBLISHED, build_network, load_photos

    published = PUBLISHED[request.name]
    removed: tuple[str, ...]
    if request.weights is not None:
        module = build_network(published, num_classes=0, **request.model_args)
        about, removed = NOTHING_STATED, _CLASSIFIER
    else:
        module = load_photos(published, **request.model_args)
        about, removed = published.about, ()
    return Built(module, published.preprocessing, blocks_of(module), removed, about=about)


def classifier_of_bundled(request: Request) -> Callable[[], Classifier] | None:
    """Return what reads the ImageNet classifier of a bundled backbone from its file of weights."""
    from headstart.backbones.photos import PUBLISHED, classifier_tensors

    published = PUBLISHED.get(request.name)
    if published is None:
        return None

    def load() -> Classifier:
        weight, bias = classifier_tensors(published)
        return Classifier(weight.double().numpy().T, bias.double().numpy())

    return load


_CLASSIFIER = ("classifier.weight", "classifier.bias")

BUNDLED = Family(
    "headstart",
    "headstart/NAME",
    "installed with the package, no download",
    build_bundled,
    names=lambda: _NAMES,
    groups=timm_groups,
    about=about_bundled,
    fixed=lambda _: True,
    classifier=classifier_of_bundled,
)
