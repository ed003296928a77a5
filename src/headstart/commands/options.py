"""The options that several commands share, each written once."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from headstart.core.errors import ConfigError

if TYPE_CHECKING:
    from headstart.commands.backbone_spec import BackboneSpec
    from headstart.commands.sources import DataOptions
    from headstart.extraction import Extraction

_BACKBONE = "Backbone"
_DATA = "Data"
_RUN = "Running"

Data = Annotated[
    str,
    typer.Argument(
        help="A folder of class folders (with or without train/ and val/ or test/ above them), "
        "a CSV or Parquet file, a folder of train.* and test.*, or the word digits.",
        show_default=False,
    ),
]
Items = Annotated[
    str,
    typer.Argument(
        help="An image, a folder of images, a CSV or Parquet file, or the word digits.",
        show_default=False,
    ),
]
RunFolder = Annotated[
    Path, typer.Argument(metavar="RUN", help="A run folder, made by fit.", show_default=False)
]
BackboneName = Annotated[
    str,
    typer.Option(
        "--backbone",
        "-b",
        help="headstart/glyphs, timm/NAME[.TAG], torchvision/NAME[.WEIGHTS] or "
        "path/to/file.py:factory.",
        rich_help_panel=_BACKBONE,
    ),
]
Weights = Annotated[
    Path | None,
    typer.Option(
        help="A local checkpoint instead of the weights that the name stands for.",
        show_default=False,
        rich_help_panel=_BACKBONE,
    ),
]
ModelArgs = Annotated[
    str | None,
    typer.Option(
        metavar="JSON",
        help='Further arguments of the architecture, such as \'{"pad_type": "same"}\'.',
        show_default=False,
        rich_help_panel=_BACKBONE,
    ),
]
Layer = Annotated[
    str | None,
    typer.Option(
        help="Cut after this layer; 'headstart backbones NAME' lists them. "
        "Default: the input of the classifier.",
        show_default=False,
        rich_help_panel=_BACKBONE,
    ),
]
Pooling = Annotated[
    str | None,
    typer.Option(
        help="avg, cls, gem or none. Default: avg at a layer.",
        show_default=False,
        rich_help_panel=_BACKBONE,
    ),
]
Mean = Annotated[
    str | None,
    typer.Option(
        metavar="M|R,G,B",
        help="Mean of the inputs in pre-training, on scaled values. Default: the weights' own.",
        show_default=False,
        rich_help_panel=_BACKBONE,
    ),
]
Std = Annotated[
    str | None,
    typer.Option(
        metavar="S|R,G,B",
        help="Standard deviation, likewise.",
        show_default=False,
        rich_help_panel=_BACKBONE,
    ),
]
Size = Annotated[
    str | None,
    typer.Option(
        metavar="N|H,W",
        help="Input size in pixels. Default: the weights' own.",
        show_default=False,
        rich_help_panel=_BACKBONE,
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(
        help="Factor on the 0..255 values before mean and std. Default: 1/255.",
        show_default=False,
        rich_help_panel=_BACKBONE,
    ),
]
CropFraction = Annotated[
    float | None,
    typer.Option(
        "--crop",
        help="Part of the resized image that the centre crop keeps, in (0, 1].",
        show_default=False,
        rich_help_panel=_BACKBONE,
    ),
]
Interpolation = Annotated[
    str | None,
    typer.Option(
        help="nearest, box, bilinear, hamming, bicubic or lanczos.",
        show_default=False,
        rich_help_panel=_BACKBONE,
    ),
]
Channels = Annotated[
    str | None,
    typer.Option(help="RGB or BGR.", show_default=False, rich_help_panel=_BACKBONE),
]
ImageColumn = Annotated[
    str | None,
    typer.Option(
        help="Column of a table with images or their paths.",
        show_default=False,
        rich_help_panel=_DATA,
    ),
]
LabelColumn = Annotated[
    str | None,
    typer.Option(help="Column of a table with labels.", show_default=False, rich_help_panel=_DATA),
]
BadFiles = Annotated[
    str,
    typer.Option(
        help="raise: stop after reading everything, listing what cannot be read. "
        "skip: leave it out.",
        rich_help_panel=_DATA,
    ),
]
TestFraction = Annotated[
    float,
    typer.Option(
        help="Share set aside for testing where the data has no test split.", rich_help_panel=_DATA
    ),
]
Cache = Annotated[
    str | None,
    typer.Option(
        help="Folder of the feature cache, or an address such as s3://bucket/features. "
        "Default: $HEADSTART_CACHE or the platform's.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
BatchSize = Annotated[int, typer.Option(help="Images a forward pass.", rich_help_panel=_RUN)]
Precision = Annotated[
    str,
    typer.Option(
        help="Precision of the forward pass: float32, bfloat16 or float16.", rich_help_panel=_RUN
    ),
]
Storage = Annotated[
    str,
    typer.Option(
        help="How the cache keeps features: float32, float16 or int8.", rich_help_panel=_RUN
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, …", rich_help_panel=_RUN)]
Compile = Annotated[
    bool,
    typer.Option(
        "--compile",
        help="Compile the network first; pays for tens of thousands of images.",
        rich_help_panel=_RUN,
    ),
]
Workers = Annotated[
    int | None,
    typer.Option(
        help="Threads that decode images. Default: one a processor, at most 8.",
        show_default=False,
        rich_help_panel=_RUN,
    ),
]
Seed = Annotated[
    int, typer.Option(help="Seed of every random choice.", min=0, rich_help_panel=_RUN)
]
AsJson = Annotated[
    bool, typer.Option("--json", help="Print JSON on standard output.", rich_help_panel=_RUN)
]
Quiet = Annotated[
    bool, typer.Option("--quiet", "-q", help="No notes and no progress.", rich_help_panel=_RUN)
]
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Run folder. Default: runs/TIME-NAME.", show_default=False),
]


@dataclass(frozen=True)
class Network:
    """How a named backbone is built and fed, as a group of options."""

    weights: Weights = None
    model_args: ModelArgs = None
    mean: Mean = None
    std: Std = None
    size: Size = None
    scale: Scale = None
    crop: CropFraction = None
    interpolation: Interpolation = None
    channels: Channels = None

    def spec(self, name: str, layer: str | None = None, pooling: str | None = None) -> BackboneSpec:
        """Return how to build the backbone; all malformed options are reported together."""
        from headstart.commands.backbone_spec import BackboneSpec

        faults: list[str] = []
        values: dict[str, Any] = {
            "mean": _numbers("--mean", self.mean, faults),
            "std": _numbers("--std", self.std, faults),
            "size": _size(self.size, faults),
            "scale": self.scale,
            "crop_fraction": self.crop,
            "interpolation": self.interpolation,
            "channels": self.channels,
        }
        arguments = _json_object("--model-args", self.model_args, faults)
        if faults:
            raise ConfigError(tuple(faults))
        return BackboneSpec(
            source=name,
            weights=None if self.weights is None else str(self.weights.expanduser().absolute()),
            model_args=arguments,
            layer=layer,
            pooling=pooling,
            preprocessing={key: value for key, value in values.items() if value is not None},
        )


@dataclass(frozen=True)
class Source:
    """Where images and labels stand in the data, as a group of options."""

    image_column: ImageColumn = None
    label_column: LabelColumn = None
    test_fraction: TestFraction = 0.2

    def options(self) -> DataOptions:
        """Return how to read the data."""
        from headstart.commands.sources import DataOptions

        return DataOptions(
            image_column=self.image_column,
            label_column=self.label_column,
            test_fraction=self.test_fraction,
        )


def extraction(
    batch_size: int,
    precision: str,
    device: str,
    compile_it: bool,
    workers: int | None,
    storage: str = "float32",
) -> Extraction:
    """Turn the running options into settings."""
    from headstart.extraction import Extraction

    return Extraction(
        batch_size=batch_size,
        precision=precision,  # type: ignore[arg-type]
        device=device,
        compile=compile_it,
        workers=workers,
        storage=storage,  # type: ignore[arg-type]
    )


def _numbers(option: str, text: str | None, faults: list[str]) -> Any:
    if text is None:
        return None
    try:
        values = [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        values = []
    if len(values) not in (1, 3):
        faults.append(f"{option} takes one number or three with commas, not '{text}'")
        return None
    return values[0] if len(values) == 1 else values


def _size(text: str | None, faults: list[str]) -> Any:
    if text is None:
        return None
    parts = text.lower().replace("x", " ").replace(",", " ").replace("×", " ").split()
    if len(parts) in (1, 2) and all(part.isdigit() and int(part) > 0 for part in parts):
        sides = [int(part) for part in parts]
        return sides[0] if len(sides) == 1 else sides
    faults.append(f"--size takes a number of pixels, or height and width as 224,160, not '{text}'")
    return None


def _json_object(option: str, text: str | None, faults: list[str]) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        value = json.loads(text)
    except ValueError as error:
        faults.append(f"{option} is not valid JSON ({error})")
        return {}
    if not isinstance(value, dict):
        faults.append(f"{option} takes a JSON object, not {text}")
        return {}
    return value
