"""``FeatureExtractor``: images or texts → features of a frozen backbone, through the cache."""

from __future__ import annotations

import dataclasses
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils.validation import check_array, validate_data
from torch import nn

from headstart.backbones import AUTO, Backbone, Pooling, choose, misfit
from headstart.cache import FeatureCache
from headstart.core.errors import ConfigError
from headstart.core.progress import SilentReporter, console_reporter
from headstart.data import DigestMemo, Items, Split, load_items
from headstart.data.levels import range_fault
from headstart.data.lists import names_files
from headstart.data.source import NATIVE
from headstart.extraction import Extraction, Precision, extract
from headstart.modules.pooling import pooling_kinds
from headstart.sklearn import images
from headstart.sklearn.faults import InputError, SettingsError, conventional, raise_faults
from headstart.sklearn.heads import is_empty
from headstart.sklearn.networks import EXTRACTING, argument_faults, cut_network


# fmt: off
class FeatureExtractor(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
# fmt: on
    """Turn images or texts into features of a frozen, pre-trained network.

    The network runs once an item, in evaluation mode. Its features are kept on disk, known by
    the content of the item: another fold, another head or another parameter of a search finds
    them there. ``fit`` learns nothing; it checks parameters and data.

    Args:
        backbone: ``auto``: chosen by a look at 32 of the items that come first, in ``fit`` or
            else in ``transform``, and kept until the next ``fit``. Or a name
            (``headstart/photos``, ``headstart/glyphs``, ``timm/NAME``, ``torchvision/NAME``,
            ``hf/NAME``, ``file.py:factory``), a :class:`~headstart.Backbone`, or a module of your
            own. A name is best in a search: clones of an object carry a copy of its weights each.
        layer: name of the submodule whose output is the feature; None: the backbone's own.
        pooling: ``avg``, ``cls``, ``last``, ``gem`` or ``none``; None is ``avg`` at a layer.
        backbone_args: further arguments of :func:`headstart.load_backbone`, such as ``weights``,
            ``model_args`` or ``size``; for a name or a module.
        image_shape: how flat rows ``(n, d)`` hold an image: ``(h, w)``, ``(h, w, c)``,
            ``(c, h, w)``, or ``"square"``: the smallest square grey image that holds the row,
            filled up with black. None takes rows of 64, 81, 100, ... values as square grey
            images and refuses others.
        value_range: the values of black and white in numeric arrays and in files, such as
            ``(0, 16)``. None: integers are levels 0..255, floats lie in [0, 1], and files say what
            their values mean.
        image_column: the column of a table that holds paths or bytes, of images or of sounds; None:
            found by itself.
        text_column: the column of a table that holds texts; None: found by itself.
        cache: folder of the feature cache; None: ``$HEADSTART_CACHE``, else the platform's cache
            folder; False: nothing is kept.
        batch_size: items a forward pass.
        precision: ``float32``, ``bfloat16`` or ``float16``; see :class:`~headstart.Extraction`.
        device: ``auto`` takes a CUDA device if there is one.
        workers: threads that decode images; None: the processors of this process, at most 8.
        verbose: whether to show progress on standard error.

    Attributes:
        n_features_in_: width of X, where X was a table or flat rows.
        feature_names_in_: names of its columns, where it was a table with names.
        backbone_: the backbone that ``auto`` has chosen, or the one that was given.
    """

    def __init__(
        self,
        backbone: str | Backbone | nn.Module = "auto",
        *,
        layer: str | None = None,
        pooling: Pooling | None = None,
        backbone_args: Mapping[str, Any] | None = None,
        image_shape: Literal["square"] | tuple[int, ...] | None = None,
        value_range: tuple[float, float] | None = None,
        image_column: str | None = None,
        text_column: str | None = None,
        cache: str | os.PathLike[str] | Literal[False] | None = None,
        batch_size: int = 64,
        precision: Precision = "float32",
        device: str = "auto",
        workers: int | None = None,
        verbose: bool = False,
    ) -> None:
        self.backbone = backbone
        self.layer = layer
        self.pooling = pooling
        self.backbone_args = backbone_args
        self.image_shape = image_shape
        self.value_range = value_range
        self.image_column = image_column
        self.text_column = text_column
        self.cache = cache
        self.batch_size = batch_size
        self.precision = precision
        self.device = device
        self.workers = workers
        self.verbose = verbose

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002  # scikit-learn's signature
        """Check the parameters and the form of X; with ``backbone="auto"``, choose the backbone.

        Nothing else is learnt, but for a mean or a standard deviation of the inputs that
        ``backbone_args`` asks to be measured. A few images are looked at, where the backbone is to
        be chosen, or where it was made for one kind of images; a warning says where that evidently
        does not fit.

        Args:
            X: see :meth:`transform`.
            y: ignored.

        Raises:
            SettingsError: parameters are invalid; all are named.
            InputError: X holds no images or texts.
        """
        raise_faults(self, extractor_faults(self.get_params(deep=False)))
        self.__dict__.pop("backbone_", None)
        with self._memo() as memo:
            split = self._split(X, memo, reset=True)
            self._choose(split, warn=True)
            with conventional(), EXTRACTING:
                cut = self._cut()
                inputs, _ = cut.inputs.settled(split, SilentReporter())
            if inputs != cut.inputs:  # measured on X, which is what trains
                self.backbone_: str | Path | Backbone | nn.Module = dataclasses.replace(
                    cut, inputs=inputs
                )
        return self

    def transform(self, X: Any) -> NDArray[np.float32]:
        """Return the features of images or texts.

        Args:
            X: one of

                - arrays or tensors ``(n, h, w)``, ``(n, h, w, c)`` or ``(n, c, h, w)``;
                - flat rows ``(n, d)``, an array or a numeric table; see ``image_shape``;
                - a list, series, or table column of paths, of bytes of image files, of
                  ``{"bytes", "path"}``, of PIL images, or of arrays of several sizes;
                - a list, series, or table column of texts, for a backbone that takes texts; with
                  ``backbone="auto"``, strings of which none names a file are texts;
                - a :class:`~headstart.data.Split`.

        Returns:
            ``(n, d) float32``, in the order of X.

        Raises:
            SettingsError, InputError: as for :meth:`fit`.
            BadFilesError: images cannot be read; all are named, and the others are kept.
        """
        raise_faults(self, extractor_faults(self.get_params(deep=False)))
        if is_empty(X):
            return np.empty((0, self._n_features_out), np.float32)
        store = self._store()
        with self._memo() as memo:
            split = self._split(X, memo, reset=False)
            self._choose(split, warn=False)
            return self._rows(split, store)

    def _store(self) -> FeatureCache | None:
        if self.cache is False:
            return None
        return FeatureCache(None if self.cache is None else Path(self.cache))

    def _memo(self) -> AbstractContextManager[DigestMemo | None]:
        store = self._store()
        return nullcontext() if store is None else store.memo()

    def _choose(self, split: Split, *, warn: bool) -> None:
        """Settle the backbone, unless it is settled."""
        if not hasattr(self, "backbone_") and self.backbone == AUTO:
            with conventional():
                choice = choose(split)
            if self.verbose:
                console_reporter().note(choice.reason)
            self.backbone_ = choice.name
        elif warn:
            self.backbone_ = self.backbone
            with conventional(), EXTRACTING:
                warning = misfit(self._cut(), split)
            if warning is not None:
                warnings.warn(warning.removeprefix("warning: "), UserWarning, stacklevel=3)

    def _rows(self, split: Split, store: FeatureCache | None) -> NDArray[np.float32]:
        settings = Extraction(
            batch_size=self.batch_size,
            precision=self.precision,
            device=self.device,
            workers=self.workers,
        )
        reporter = console_reporter() if self.verbose else None
        with conventional(), EXTRACTING:
            cut = self._cut()
            if store is None:
                rows = extract(cut, split, settings=settings, reporter=reporter).features[0]
            else:
                rows = store.features(cut, split, settings=settings, reporter=reporter).rows
        if rows.ndim != 2:
            raise SettingsError(
                (f"features of {cut.name} have {rows.ndim - 1} dimensions per image",),
                hint='use pooling="avg"',
            )
        # A mapped file cannot be written; later steps of a pipeline may work in place.
        return rows if rows.flags.writeable else rows.copy()

    def _split(self, X: Any, memo: DigestMemo | None, *, reset: bool) -> Split:
        """Read X in any of its forms, and check its columns against those of ``fit``."""
        if isinstance(X, Split):
            return X
        if reset:
            for name in ("n_features_in_", "feature_names_in_"):
                self.__dict__.pop(name, None)
        _refuse_names(X)
        with conventional():
            column = self.image_column or self.text_column
            if column is not None or images.is_column(X):
                values = (
                    images.column_values(X) if column is None else images.named_column(X, column)
                )
                self._check_columns(X, reset)
                return images.split_of(self._column_items(values or (), memo))
            if _is_mixed_table(X):
                self._check_columns(X, reset)
                kind = self._kind()
                return load_items(X, kind=kind, value_range=self._range(), digest_memo=memo)
        return images.split_of(self._array_items(X, reset))

    def _column_items(self, values: Sequence[Any], memo: DigestMemo | None) -> Items:
        """Return the items of a column: texts, or images in any form."""
        strings = [value for value in values if isinstance(value, str)]
        texts = self.text_column is not None
        if strings and self.image_column is None and not texts:
            kind = self._kind()
            texts = kind == "text" or (kind is None and not names_files(strings))
        if texts:
            return images.text_items(values)
        return images.column_items(values, self._range(), memo, native=self._kind() == NATIVE)

    def _kind(self) -> str | None:
        """Return the kind of items that the backbone takes; None: it is still to be chosen."""
        if self.backbone == AUTO and not hasattr(self, "backbone_"):
            return None
        with conventional(), EXTRACTING:
            return self._cut().inputs.kind

    def _array_items(self, X: Any, reset: bool) -> Any:
        if hasattr(X, "detach"):
            X = X.detach().cpu().numpy()
        array = X if hasattr(X, "shape") else np.asarray(X)
        if len(array.shape) > 2:
            array = check_array(array, allow_nd=True, estimator=self, input_name="X")
        else:
            array = validate_data(self, X, reset=reset)
        native = self._kind() == NATIVE
        return images.array_items(
            array, self.image_shape, self._range(), advise=reset, native=native
        )

    def _check_columns(self, X: Any, reset: bool) -> None:
        if hasattr(X, "columns") or len(getattr(X, "shape", ())) == 2:
            validate_data(self, X, reset=reset, skip_check_array=True)

    def _range(self) -> tuple[float, float] | None:
        return None if self.value_range is None else (self.value_range[0], self.value_range[1])

    def _cut(self) -> Backbone:
        backbone = getattr(self, "backbone_", self.backbone)
        return cut_network(backbone, self.layer, self.pooling, self.backbone_args or {})

    @property
    def _n_features_out(self) -> int:
        """Width of a row; scikit-learn's mixin numbers the features' names by it."""
        raise_faults(self, extractor_faults(self.get_params(deep=False)))
        with conventional(), EXTRACTING:
            return self._cut().feature_shape()[-1]

    def __sklearn_tags__(self) -> Any:
        """Say what X may be, so that scikit-learn's checks feed no tables to a reader of images."""
        return image_tags(super().__sklearn_tags__(), self.image_shape)


def image_tags(tags: Any, image_shape: object) -> Any:
    """Set the tags of an estimator that takes images or texts.

    Only with ``image_shape="square"`` is any two-dimensional array a batch of images.
    """
    tags.input_tags.two_d_array = image_shape == "square"
    tags.input_tags.three_d_array = True
    tags.input_tags.string = True
    if tags.transformer_tags is not None:
        tags.transformer_tags.preserves_dtype = ["float32"]
        tags.requires_fit = False
    return tags


def extractor_faults(given: Mapping[str, Any]) -> list[str]:
    """Return what is wrong with the parameters of an extractor, one sentence each."""
    faults = []
    if not isinstance(given["backbone"], str | Path | Backbone | nn.Module):
        kind = type(given["backbone"]).__name__
        faults.append(f"backbone must be a name, a Backbone or a module, not {kind}")
    faults += argument_faults(given["backbone_args"])
    named = [n for n in ("weights", "rename", "model_args") if n in (given["backbone_args"] or {})]
    if named and given["backbone"] == AUTO:
        faults.append(
            f"backbone_args names {' and '.join(named)}, which need a named backbone, and"
            " backbone='auto' names none"
        )
    if given["backbone_args"] and isinstance(given["backbone"], Backbone):
        faults.append("backbone_args does not apply to a Backbone, which is already built")
    poolings = [kind.name for kind in pooling_kinds()]
    if given["pooling"] not in (None, *poolings):
        known = ", ".join(poolings)
        faults.append(f"pooling must be one of {known} or None, not {given['pooling']!r}")
    if given["image_column"] is not None and given["text_column"] is not None:
        faults.append("image_column and text_column are both given: a backbone takes one of them")
    faults += _shape_faults(given["image_shape"]) + _range_faults(given["value_range"])
    cache = given["cache"]
    if cache is not None and cache is not False and not isinstance(cache, str | os.PathLike):
        faults.append(f"cache must be a folder, None or False, not {type(cache).__name__}")
    try:
        Extraction(given["batch_size"], given["precision"], workers=given["workers"])
    except ConfigError as error:
        faults += error.faults
    except TypeError:
        faults.append("batch_size and workers must be whole numbers")
    return faults


def _shape_faults(shape: object) -> list[str]:
    if shape is None or (isinstance(shape, str) and shape == "square"):
        return []
    sizes = shape if isinstance(shape, tuple | list) else ()
    if len(sizes) in (2, 3) and all(isinstance(s, int | np.integer) and s > 0 for s in sizes):
        return []
    return [f"image_shape must be (h, w), (h, w, c), (c, h, w), 'square' or None, not {shape!r}"]


def _range_faults(limits: object) -> list[str]:
    fault = None if limits is None else range_fault(limits)
    return [] if fault is None else [f"value_range {fault}"]


def _refuse_names(X: Any) -> None:
    if isinstance(X, Image.Image):
        raise InputError("expected images, one a row, found one image", hint="give [image], a list")
    if isinstance(X, str | os.PathLike):
        raise InputError(
            f"expected images or texts, one a row, found the string '{os.fspath(X)}'",
            hint="give a list, even for one, or headstart.load_items(path) for a folder or table",
        )


def _is_mixed_table(X: Any) -> bool:
    """Return whether X is a table of several columns that are not all numbers."""
    if not hasattr(X, "columns") and not hasattr(X, "column_names"):
        return False
    return np.asarray(X).dtype.kind not in "biufc" and not _all_numbers(X)


def _all_numbers(X: Any) -> bool:
    dtypes = getattr(X, "dtypes", None)  # pandas' own nullable types become objects in numpy
    kinds = [getattr(dtype, "kind", "O") for dtype in dtypes] if dtypes is not None else ["O"]
    return all(kind in "biufc" for kind in kinds)
