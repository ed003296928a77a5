"""Texts as inputs of a backbone: tokens, padded on the right to the longest text of their batch.

Padding is on the right whatever the tokenizer says: the tokens of a text then have the positions
that they have when it is alone, so that its row depends on no other text of the batch. The mask
tells the network and the pooling which tokens are there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray

from headstart.core.arguments import Arguments
from headstart.core.errors import BadFilesError, ConfigError, DataError
from headstart.core.records import Excerpt
from headstart.core.wording import shorten
from headstart.data.content import Content, UndecodableError, text_of
from headstart.data.inputs import Inputs, NumberedView, PlainRows, register_inputs
from headstart.data.items import Items
from headstart.data.remarks import listening, remark
from headstart.data.tokenizers import keep_tokenizer, kept_tokenizer, library_version, tokenize

if TYPE_CHECKING:
    from headstart.data.dataset import Split

_SHOWN = 400
"""Characters of an excerpt."""
_FRAME = 8
"""More special tokens than any tokenizer puts around a text."""
_STEP = 8
"""Tokens by which one length for all texts is rounded up, so that like data have equal keys."""


@register_inputs
@dataclass(frozen=True)
class Texts(Inputs):
    """From a text to the tokens of a network.

    Attributes:
        tokenizer: digest of the tokenizer, which comes with the backbone; see
            :mod:`headstart.data.tokenizers`.
        max_length: tokens of the longest text, special tokens included; what is behind them is
            not read, and a note counts the texts that this concerns.
        pad: the token that pads.
        segments: whether the network is told the segment of each token.
        prompt: what is put before every text, as the weights state it.
        lower: whether texts are put in lower case before the tokenizer sees them.
        special: whether special tokens (such as ``[CLS]`` and ``[SEP]``) are put around a text.
        masked: whether the network and the pooling are told what is padding. Without the mask,
            texts are padded to ``length``, so that rows stay functions of their texts; that is a
            mistake for :func:`headstart.compare` to measure.
        length: tokens that every text is padded to; 0: the longest of the batch. Rows are the
            same but for rounding; training from stored rows needs one shape.
        characters: how many are read of a text before it is tokenized, as model2vec does; 0: all.

    Raises:
        ConfigError: naming every value that cannot be.
    """

    kind: ClassVar[str] = "text"
    unit: ClassVar[str] = "texts"

    tokenizer: str
    max_length: int
    pad: int
    segments: bool = False
    prompt: str = ""
    lower: bool = False
    special: bool = True
    masked: bool = True
    length: int = 0
    characters: int = 0

    def __post_init__(self) -> None:
        faults = []
        if not isinstance(self.max_length, int) or self.max_length < 3:
            faults.append(f"max_length must be 3 or more tokens, not {self.max_length!r}")
        elif not (isinstance(self.length, int) and 0 <= self.length <= self.max_length):
            faults.append(f"length must lie between 0 and {self.max_length}, not {self.length!r}")
        if faults:
            raise ConfigError(tuple(faults))

    def __getstate__(self) -> dict[str, Any]:
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        return {**values, "_written": kept_tokenizer(self.tokenizer)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        keep_tokenizer(state.pop("_written"))
        self.__dict__.update(state)

    def sample(
        self,
        content: Content,
        view: NumberedView | None = None,  # noqa: ARG002
        key: str = "",  # noqa: ARG002
    ) -> NDArray[np.int64]:
        """Tokenize one text; returns token numbers and segments, ``(2, tokens) int64``."""
        text = text_of(content)
        if not text.strip():
            raise UndecodableError("the text is empty")
        text = self.prompt + text
        whole, text = len(text), text[: self.characters or None]
        found = tokenize(
            text.lower() if self.lower else text, self.tokenizer, self._longest, self.special
        )
        if not found.ids:
            raise UndecodableError("the tokenizer finds no tokens in it")
        if found.cut or len(text) < whole:
            remark(self._cut)
        return np.array([found.ids, found.segments], dtype=np.int64)

    @property
    def _cut(self) -> str:
        return f"Longer than {self._longest:,} tokens; the rest is not read"

    def remarks(self, split: Split) -> Mapping[str, Sequence[str]]:
        """Return the texts that are cut; only long ones are tokenized to find out."""
        cut = []
        for i in range(len(split)):
            with contextlib.suppress(UndecodableError, BadFilesError), listening() as heard:
                content = split.content(i)
                text = self.prompt + text_of(content)
                # a token is a byte or more of a text, and a letter up to four of them
                if len(text.encode("utf-8", "replace")) > self._longest - _FRAME:
                    self.sample(content)
                    cut += [split.origins[i]] if self._cut in heard else []
        return {self._cut: cut} if cut else {}

    @property
    def _longest(self) -> int:
        return self.length or self.max_length

    def collate(self, samples: Sequence[NDArray[np.int64]]) -> Arguments:
        """Pad to the longest text: ``(n, tokens) int64``, and a mask of the same shape."""
        longest = max((self.length, *(sample.shape[1] for sample in samples)))
        tokens = np.full((len(samples), longest), self.pad, dtype=np.int64)
        segments = np.zeros_like(tokens)
        mask = np.zeros(tokens.shape, dtype=np.int64)
        for i, sample in enumerate(samples):
            size = sample.shape[1]
            tokens[i, :size], segments[i, :size] = sample
            mask[i, :size] = 1
        if not self.masked:
            mask[:] = 1
        named = {"attention_mask": torch.from_numpy(mask)}
        if self.segments:
            named["token_type_ids"] = torch.from_numpy(segments)
        return Arguments((torch.from_numpy(tokens),), named, named["attention_mask"] > 0)

    def describe(self) -> dict[str, Any]:
        """Return everything that decides the tokens, as plain JSON values, for cache keys."""
        values = self.values()
        if not self.characters:
            del values["characters"]
        return {"kind": self.kind, **values, "library": library_version()}

    def example(self, count: int) -> Arguments:
        """Return sentences of several lengths."""
        chosen = [_SENTENCES[i % len(_SENTENCES)] for i in range(count)]
        return self.collate([self.sample(text) for text in chosen])

    @property
    def extent(self) -> str:
        """What the network is given, in words."""
        return f"texts of up to {self._longest:,} tokens"

    def order(self, split: Split, indices: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return items with the longest text first, so that a batch has texts of one length."""
        lengths = np.array(self._lengths(split.take(indices)), dtype=np.int64)
        return indices[np.argsort(-lengths, kind="stable")]

    def one_shape(self, splits: Sequence[Split]) -> Texts:
        """Return inputs that pad to the longest text, unless most texts are far shorter.

        Shorter than a third of it are then even the longest of a usual batch: the length of all
        but 3 % of the texts.
        """
        lengths = [size for split in splits for size in self._lengths(split)]
        if not any(lengths):
            return self
        longest = min(self.max_length, -(-max(lengths) // _STEP) * _STEP)
        usual = float(np.quantile(lengths, 0.97))
        return self.changed(length=longest) if longest <= 3 * max(usual, _STEP) else self

    def _lengths(self, split: Split) -> list[int]:
        """Return the number of tokens of each text; 0 where it cannot be read."""
        found = [0] * len(split)
        for i in range(len(split)):
            with contextlib.suppress(UndecodableError, BadFilesError):  # told when it is read
                found[i] = self.sample(split.content(i)).shape[1]
        return found

    @property
    def ragged(self) -> bool:
        """Whether texts are padded to the longest of their batch."""
        return self.length == 0

    def excerpt(self, *contents: Content) -> Excerpt:
        """Return the beginning of each text."""
        shown = (shorten(" ".join(text_of(each).split()), _SHOWN) for each in contents)
        return Excerpt(text=" | ".join(shown))

    def mistakes(self) -> Mapping[str, Inputs]:
        """Return what goes wrong with texts in practice, by name.

        ``unmasked``: padded to 64 tokens, and padding counts as text. ``unframed``: without the
        special tokens. ``truncated``: no more than 8 tokens are read.
        """
        whole = min(64, self.max_length)
        return {
            "unmasked": self.changed(masked=False, length=whole),
            "unframed": self.changed(special=False),
            "truncated": self.changed(max_length=min(8, self.max_length), length=0),
        }

    def consequence(self, other: Inputs) -> str:
        """Return what other inputs mean for the texts, as a clause."""
        if not isinstance(other, Texts):
            return ""
        said = []
        if self.masked and not other.masked:
            said.append("padding counts as text: the network and the pooling see no mask")
        if self.special and not other.special:
            said.append("texts lack the special tokens that the network was trained with")
        if other._longest < self._longest:
            said.append(
                f"nothing is read of a text behind token {other._longest:,},"
                f" instead of {self._longest:,}"
            )
        return " and ".join(said)

    def plain_rows(self, train: Split, test: Split) -> PlainRows | None:  # noqa: ARG002
        """Return TF-IDF weights of words, by the words of the training texts."""
        from headstart.data.word_counts import tf_idf

        return tf_idf(train)

    def code(self) -> tuple[str, ...]:
        """Return lines of Python that make the arguments of ``texts``."""
        return (
            "batch = tokenizer(texts, padding=True, truncation=True, padding_side='right',"
            f" max_length={self.max_length}, return_tensors='pt')",
        )

    @classmethod
    def check_items(cls, items: Items) -> None:
        """Refuse images and sounds.

        Raises:
            DataError: the items are images or sounds.
        """
        if items.kind == "audio":
            raise DataError(
                "the data are sounds, and this backbone takes texts",
                hint="choose one for sounds, such as backbone='hf/facebook/wav2vec2-base-960h',"
                " or name the text column with text_column=NAME",
            )
        if items.kind == "image":
            raise DataError(
                "the data are images, and this backbone takes texts",
                hint="choose a backbone for images, such as backbone='headstart/glyphs', or name"
                " the text column with text_column=NAME",
            )

    def __str__(self) -> str:
        said = [f"up to {self._longest:,} tokens, padded on the right"]
        if self.prompt:
            said.append(f"prompt {self.prompt!r}")
        return ", ".join(said)


_SENTENCES = (
    "The quick brown fox jumps over the lazy dog near the river bank.",
    "How far is it from here to the nearest town, and how long does the journey take by train?",
    "Water boils at one hundred degrees.",
    "She sold seven books in March, eleven in April and none at all in the long, rainy summer.",
)
"""What a network is tried on."""


__all__ = ["Texts"]
