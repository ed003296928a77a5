"""The inputs of a backbone: from the content of an item to the arguments of its network.

The steps are *content → sample → batch → arguments*:

- :meth:`Inputs.sample` decodes one item; it runs in threads.
- :meth:`Inputs.collate` joins samples into one batch, padded where they differ in length.
- :meth:`Inputs.finish` turns the batch into what the network takes, on the network's device.

A kind of inputs is one class, entered in the table by :func:`register_inputs`. Images
(:class:`~headstart.data.preprocessing.Preprocessing`) are the first one. Nothing above this package
and the backbones asks which kind it is dealing with.
"""

from __future__ import annotations

import dataclasses
import json
import reprlib
from abc import ABC, abstractmethod
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar

import numpy as np
from numpy.typing import NDArray

from headstart.core.arguments import Arguments
from headstart.core.errors import ConfigError
from headstart.core.progress import Reporter
from headstart.core.records import Excerpt
from headstart.core.wording import did_you_mean
from headstart.data.content import Content
from headstart.data.input_records import NumberedView, PlainRows
from headstart.data.items import Items

if TYPE_CHECKING:
    from headstart.data.dataset import Split


@dataclass(frozen=True)
class Variant:
    """Other inputs that the same network might have been trained with.

    Attributes:
        name: what is different, to follow "inputs" in a sentence ("divided by 255").
        inputs: the other inputs.
        mends: the mistake that this would correct, as one word ("unscaled").
    """

    name: str
    inputs: Inputs
    mends: str


@dataclass(frozen=True)
class Enlargement:
    """By how much items are enlarged before the network sees them.

    Attributes:
        side: median of the items' shorter sides, in pixels.
        resized: the side that they are resized to.
        nearer: inputs near the items' own size; None where the network cannot take any.
    """

    side: int
    resized: int
    nearer: Variant | None

    @property
    def factor(self) -> float:
        """How many times the items are enlarged."""
        return self.resized / self.side


class Inputs(ABC):
    """What a backbone's weights expect of an item.

    Subclasses are frozen dataclasses whose fields are plain values: they are compared, hashed,
    described in cache keys and rebuilt from a run folder field by field.

    Attributes:
        kind: the name under which the class is registered ("image").
        unit: what to call several items in progress and reports ("images").
    """

    kind: ClassVar[str]
    unit: ClassVar[str] = "items"

    @abstractmethod
    def sample(self, content: Content, view: NumberedView | None = None, key: str = "") -> Any:
        """Decode one item. Called in several threads at once.

        Args:
            content: of the item.
            view: a numbered augmentation, of those that :meth:`numbered_views` returns; None: no
                augmentation.
            key: the item's id; views are drawn from it.

        Returns:
            A sample that :meth:`collate` takes. It does not depend on the fields that
            :attr:`decoding` leaves out.

        Raises:
            UndecodableError: with the reason, in plain words.
        """

    @abstractmethod
    def collate(self, samples: Sequence[Any]) -> Arguments:
        """Join samples into one batch on the CPU, padded to one shape where they differ.

        Pixels and tokens stay integers here: they travel to the device at
        a quarter of the size.
        """

    def check_ready(self) -> None:  # noqa: B027
        """Refuse what this machine cannot decode with, before any item is read.

        Raises:
            ConfigError: what these inputs decode with is not there.
        """

    def encoded(self, content: Content) -> Any:  # noqa: ARG002
        """Return an item that :meth:`decoded` takes together with others; None: by itself."""
        return None

    def decoded(self, waiting: Sequence[Any]) -> Sequence[Any]:
        """Return the samples of what :meth:`encoded` returned, or an exception for a bad one.

        Called in several threads at once; it pays where a device decodes.
        """
        return waiting

    def shape(self, sample: Any) -> Hashable:  # noqa: ARG002
        """Return what the samples of one batch have to share; by default nothing.

        Where a network takes no padding, this is the length of an item.
        """
        return None

    def finish(self, batch: Arguments) -> Arguments:
        """Turn a collated batch into what the network takes, on the device where it is.

        The batch itself is left unchanged. By default it is what the network takes.
        """
        return batch

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Return everything that decides the arguments, as plain JSON values, for cache keys."""

    @abstractmethod
    def example(self, count: int) -> Arguments:
        """Return ``count`` plausible items on the CPU, ready for the network, always the same."""

    def one_shape(self, splits: Sequence[Split]) -> Inputs:  # noqa: ARG002
        """Return inputs that give every item of some splits the same shape; by default unchanged.

        Rows are the same but for rounding. Inputs whose items would be padded far beyond their own
        length are returned unchanged; :attr:`ragged` says so.
        """
        return self

    @property
    def ragged(self) -> bool:
        """Whether the shape of a batch depends on its items; by default where there is a mask."""
        return self.example(1).mask is not None

    @property
    def extent(self) -> str:
        """What the network is given, in words ("images of 224×224")."""
        return self.unit

    @property
    def decoding(self) -> Hashable:
        """What decides a sample: inputs of equal ``decoding`` can share their samples."""
        return json.dumps(self.describe(), sort_keys=True)

    def order(
        self,
        split: Split,  # noqa: ARG002
        indices: NDArray[np.int64],
    ) -> NDArray[np.int64]:
        """Return some items in the order in which batches of them cost least; by default as given.

        Args:
            split: the items.
            indices: positions in the split.
        """
        return indices

    @classmethod  # noqa: B027
    def check_items(cls, items: Items) -> None:
        """Refuse items that are known to be of another kind, before any of them is read.

        Raises:
            DataError: saying what they are, and what is taken.
        """

    def excerpt(self, *contents: Content) -> Excerpt:
        """Return a glimpse of some items, side by side; by default their content as text."""
        shown = (c if isinstance(c, str) else reprlib.repr(c) for c in contents)
        return Excerpt(text=" | ".join(text[:200] for text in shown))

    def numbered_views(
        self,
        count: int,
        *,
        seed: int = 0,  # noqa: ARG002
    ) -> tuple[NumberedView, ...]:
        """Return the augmented views 1 .. ``count`` of one family.

        Raises:
            ConfigError: this kind of inputs has none.
        """
        raise ConfigError(
            (f"numbered views of {self.unit} are not supported, found views={count}",),
            hint="omit views",
        )

    def settled(
        self,
        train: Split,  # noqa: ARG002
        reporter: Reporter,  # noqa: ARG002
    ) -> tuple[Self, tuple[str, ...]]:
        """Return inputs with what the user asked to be measured on the training split.

        By default nothing is.

        Args:
            train: the training split.
            reporter: shown the progress.

        Returns:
            The inputs, and what was measured, one sentence each.
        """
        return self, ()

    def variants(self) -> tuple[Variant, ...]:
        """Return other usual inputs, the smallest changes first; by default none."""
        return ()

    def mistakes(self) -> Mapping[str, Inputs]:
        """Return inputs with a deliberate mistake, by name ("unscaled"); by default none."""
        return {}

    def consequence(self, other: Inputs) -> str:  # noqa: ARG002
        """Return what other inputs mean for the items, as a clause; empty: there is no word for it.

        :func:`headstart.compare` puts it before the figures of these inputs.
        """
        return ""

    def enlargement(self, contents: Sequence[Content]) -> Enlargement | None:  # noqa: ARG002
        """Return by how much some items are enlarged; None where that has no meaning."""
        return None

    def remarks(self, split: Split) -> Mapping[str, Sequence[str]]:  # noqa: ARG002
        """Return what these inputs leave out of items, with the items' origins; by default nothing.

        It is for the record of a run whose rows are in the cache already, so that nothing is read.
        """
        return {}

    def plain_rows(self, train: Split, test: Split) -> PlainRows | None:  # noqa: ARG002
        """Return rows for a baseline without a network; None where there are none to offer."""
        return None

    def code(self) -> tuple[str, ...]:
        """Return lines of Python that do what :meth:`finish` does, for a user's own loop."""
        return ()

    @classmethod
    def suited(cls, values: Mapping[str, Any]) -> type[Inputs]:  # noqa: ARG003
        """Return the kind of inputs that values of fields are of; by default this one."""
        return cls

    @classmethod
    def resolve(
        cls,
        who: str,  # noqa: ARG003
        known: Mapping[str, Any],
        given: Mapping[str, Any],
    ) -> tuple[Self, tuple[str, ...]]:
        """Combine what the weights say with what the user says.

        Args:
            who: the backbone, for messages.
            known: values of fields from the weights' own metadata; may be incomplete.
            given: the user's values, which win.

        Returns:
            The inputs, and what was decided on the user's behalf, one sentence each.

        Raises:
            BackboneError: a value that is needed is neither known nor given.
            ConfigError: a name in ``given`` is not that of a field.
        """
        check_fields(cls, given)
        return cls(**{**known, **given}), ()

    @classmethod
    def field_names(cls) -> tuple[str, ...]:
        """Return the names of the fields."""
        return tuple(f.name for f in _fields(cls))

    def values(self) -> dict[str, Any]:
        """Return the value of every field, by name; ``type(self)(**values)`` makes it again."""
        return {f.name: getattr(self, f.name) for f in _fields(type(self))}

    def changed(self, **values: Any) -> Self:
        """Return the same inputs with other values of some fields.

        Raises:
            ConfigError: a name is not that of a field; all of them, with the nearest names.
        """
        check_fields(type(self), values)
        return dataclasses.replace(self, **values)  # type: ignore[type-var]

    def differences(self, other: Inputs) -> dict[str, Any]:
        """Return the values of ``other``, by field, that are not those of ``self``."""
        mine = self.values()
        return {name: v for name, v in other.values().items() if mine.get(name) != v}


INPUT_KINDS: dict[str, type[Inputs]] = {}
"""Every kind of inputs, by name; see :func:`register_inputs`."""

Kind = TypeVar("Kind", bound=type[Inputs])


def register_inputs(kind: Kind) -> Kind:
    """Enter a kind of inputs in the table; a class decorator.

    A run folder can then rebuild inputs of this kind by name.
    """
    INPUT_KINDS[kind.kind] = kind
    return kind


def inputs_kind(name: str) -> type[Inputs]:
    """Return the kind of inputs of this name.

    Raises:
        ConfigError: there is none; with the nearest names.
    """
    if name not in INPUT_KINDS:
        raise ConfigError(
            (f"there are no inputs of kind '{name}'",),
            hint=did_you_mean(name, list(INPUT_KINDS)) or "register it with register_inputs",
        )
    return INPUT_KINDS[name]


def check_fields(kind: type[Inputs], values: Mapping[str, Any]) -> None:
    """Refuse names that are not those of fields.

    Raises:
        ConfigError: naming all of them, with the nearest names.
    """
    known = kind.field_names()
    unknown = [name for name in values if name not in known]
    if unknown:
        hints = [hint for name in unknown if (hint := did_you_mean(name, known))]
        raise ConfigError(
            tuple(f"inputs of the kind '{kind.kind}' have no {name}" for name in unknown),
            hint="; ".join(hints) or f"they have {', '.join(known)}",
        )


def required_fields(kind: type[Inputs]) -> tuple[str, ...]:
    """Return the names of the fields without a default."""
    no = dataclasses.MISSING
    return tuple(f.name for f in _fields(kind) if f.default is f.default_factory is no)


def _fields(kind: type[Inputs]) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(kind)  # type: ignore[arg-type]


__all__ = [
    "INPUT_KINDS",
    "Enlargement",
    "Excerpt",
    "Inputs",
    "NumberedView",
    "PlainRows",
    "Variant",
    "check_fields",
    "inputs_kind",
    "register_inputs",
    "required_fields",
]
