"""A run as one module of PyTorch's: pixels or tokens → probabilities."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from headstart.backbones.passes import features_of, recordable_features
from headstart.core.arguments import Arguments
from headstart.data import Inputs, Preprocessing
from headstart.data.texts import Texts
from headstart.export.predictor import Predictor
from headstart.extraction.engines.exporting import rebuilt


class PredictorModule(nn.Module):
    """Inputs → backbone up to its cut → pooling → head → probabilities ``(n, k) float32``.

    The modules are copies: whatever is done to them, the run stays as it is. It is in evaluation
    mode; :meth:`predict` leaves autograd out.

    Args:
        predictor: the run.

    Attributes:
        backbone: the network; what is behind the cut does not run.
        head: from features ``(n, d)`` to probabilities, or the values of a regression.
        task: ``classification``, ``multi-label`` or ``regression``.
        classes: names of the outputs, in their order.
        temperature: of the calibration, which ``head`` divides by.
        thresholds: probabilities above which each label is predicted, of several labels.
        fenced: whether features are written as their positive less their negative part, which
            changes none; OpenVINO 2026.4 computes ``mean(x) - c`` wrongly if nothing is between.
    """

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self._cut = predictor.backbone.around(copy.deepcopy(predictor.backbone.module))
        self.backbone = self._cut.module
        self.head = predictor.head.as_module()
        self.task = predictor.head.task
        self.classes = predictor.classes
        self.temperature = predictor.head.temperature
        found = predictor.head.thresholds
        self.thresholds: tuple[float, ...] | None = None
        if self.task == "multi-label":
            self.thresholds = (0.5,) * len(self.classes) if found is None else tuple(found.tolist())
        self.fenced = False
        self.rounded = predictor.storage == "float16"
        self.eval()

    @property
    def inputs(self) -> Inputs:
        """From the content of an item to what the network takes."""
        return self._cut.inputs

    @property
    def name(self) -> str:
        """The source that the backbone was loaded from."""
        return self._cut.name

    @abstractmethod
    def forward(self, *tensors: Any) -> Tensor:
        """Return probabilities ``(n, k)``; of a regression values."""

    @abstractmethod
    def prepare(self, items: Sequence[Any]) -> tuple[Tensor, ...]:
        """Return what :meth:`forward` takes, of the contents of items: bytes of files, or texts."""

    def predict(self, items: Sequence[Any]) -> Tensor:
        """Return probabilities of the contents of items, without autograd."""
        device = next(self.parameters()).device
        with torch.inference_mode():
            found: Tensor = self(*(tensor.to(device) for tensor in self.prepare(items)))
            return found

    def outputs_of(self, arguments: Arguments) -> Tensor:
        """Run backbone and head on what the network takes."""
        cut = self._cut
        if torch.compiler.is_compiling():  # what records a program follows no pass that is stopped
            with recordable_features((cut,)) as run:
                rows = run(arguments)[0]
        else:
            rows = features_of((cut,), arguments)[0]
        rows = rows.to(torch.float32)
        if self.fenced:
            rows = torch.relu(rows) - torch.relu(-rows)
        if self.rounded:  # as the features are that the head was trained on
            rows = rows.to(torch.float16).to(torch.float32)
        found: Tensor = self.head(rows)
        return found


class ImageModule(PredictorModule):
    """Images → probabilities."""

    def forward(self, images: Tensor) -> Tensor:
        """Predict.

        Args:
            images: ``(n, 3, h, w) uint8``, RGB, decoded and upright, of any size: resized and
                cropped bit by bit as the run does it, then normalised. Or ``(n, 3, h, w) float32``
                as the network takes them.
        """
        if images.dtype == torch.uint8:
            images = self.preprocess(images)
        return self.outputs_of(Arguments((images,)))

    def preprocess(self, images: Tensor) -> Tensor:
        """Return what the network takes, of ``(n, 3, h, w) uint8``."""
        inputs = self.inputs
        assert isinstance(inputs, Preprocessing)
        return inputs.normalise(inputs.tensor_geometry(images))

    def prepare(self, items: Sequence[Any]) -> tuple[Tensor, ...]:
        """Decode, resize, crop and normalise images; ``(n, 3, *size) float32``."""
        inputs = self.inputs
        return inputs.finish(inputs.collate([inputs.sample(item) for item in items])).args


class TextModule(PredictorModule):
    """Tokens → probabilities."""

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        token_type_ids: Tensor | None = None,
    ) -> Tensor:
        """Predict.

        Args:
            input_ids: ``(n, tokens) int64``, padded on the right.
            attention_mask: ``(n, tokens) int64``, 1 where a token belongs to the text.
            token_type_ids: ``(n, tokens) int64``, for networks that take segments.
        """
        named = {"attention_mask": attention_mask}
        if token_type_ids is not None:
            named["token_type_ids"] = token_type_ids
        return self.outputs_of(Arguments((input_ids,), named, attention_mask > 0))

    def prepare(self, items: Sequence[Any]) -> tuple[Tensor, ...]:
        """Tokenize texts."""
        inputs = self.inputs
        found = inputs.finish(inputs.collate([inputs.sample(item) for item in items]))
        return (*found.args, *found.kwargs.values())


class ArgumentsModule(PredictorModule):
    """What a network of any other kind takes → probabilities."""

    def forward(self, *tensors: Tensor) -> Tensor:
        """Predict.

        Args:
            tensors: positional and named arguments, then the mask, where there is one.
        """
        return self.outputs_of(rebuilt(self.inputs.example(1), tensors))

    def prepare(self, items: Sequence[Any]) -> tuple[Tensor, ...]:
        """Return the arguments of items."""
        inputs = self.inputs
        return tuple(
            inputs.finish(inputs.collate([inputs.sample(each) for each in items])).tensors()
        )


def made_module(predictor: Predictor) -> PredictorModule:
    """Return a run as one module, of the kind of inputs that it takes.

    Raises:
        BackboneError: columns of a table join the features.
        HeadError: the kind of head has no module.
    """
    inputs = predictor.alone().backbone.inputs
    if isinstance(inputs, Preprocessing):
        return ImageModule(predictor)
    return (TextModule if isinstance(inputs, Texts) else ArgumentsModule)(predictor)


__all__ = ["ArgumentsModule", "ImageModule", "PredictorModule", "TextModule", "made_module"]
