"""What a run becomes in other libraries: PyTorch, Keras, scikit-learn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headstart.export.network import PredictorModule
    from headstart.export.predictor import Predictor


class HandsOn(ABC):
    """A run, in memory or in a folder, that can be handed on."""

    @abstractmethod
    def predictor(self) -> Predictor:
        """Return what predicts: backbone, head, and what the features depend on."""

    def to_torch(self) -> PredictorModule:
        """Return the run as one ``torch.nn.Module``: preprocessing, backbone, head, temperature.

        It takes ``(n, 3, h, w) uint8`` images of any size, or what the network takes: normalised
        images, or tokens of texts. It returns probabilities ``(n, k)``, or the values of a
        regression. ``module.classes`` names them; ``module.predict(["a.jpg", ...])`` reads files.

        Raises:
            BackboneError, HeadError: see :func:`headstart.export.network.made_module`.
        """
        from headstart.export.network import made_module

        return made_module(self.predictor())

    def to_keras(self, *, pixels: bool = True) -> Any:
        """Return the Keras backbone and the head as one ``keras.Model``.

        See :func:`headstart.export.keras_model.keras_model`.
        """
        from headstart.export.keras_model import keras_model

        found = self.predictor()
        return keras_model(found.backbone, found.head, pixels=pixels)

    def to_sklearn(self) -> Any:
        """Return the run as a fitted estimator of scikit-learn's conventions.

        A :class:`~headstart.sklearn.TransferClassifier`,
        :class:`~headstart.sklearn.TransferMultiLabelClassifier` or
        :class:`~headstart.sklearn.TransferRegressor`: ``predict``, ``predict_proba`` and ``score``
        work at once, and ``fit`` trains a head of the same kind on other data.

        Raises:
            BackboneError: columns of a table join the features.
        """
        from headstart.sklearn.fitted import fitted_estimator

        found = self.predictor().alone()
        return fitted_estimator(
            found.backbone,
            found.head,
            found.classes,
            precision=found.precision,
            value_range=found.value_range,
        )


__all__ = ["HandsOn"]
