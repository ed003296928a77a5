"""DNA as a kind of input, from outside: what a user writes, in a file of their own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from headstart.core.arguments import Arguments
from headstart.data import Content, Inputs, NumberedView, UndecodableError, register_inputs


@register_inputs
@dataclass(frozen=True)
class Dna(Inputs):
    """From a sequence of A, C, G and T to the numbers 1 to 4; 0 pads."""

    kind: ClassVar[str] = "dna"
    unit: ClassVar[str] = "sequences"

    longest: int = 60

    def sample(self, content: Content, view: NumberedView | None = None, key: str = "") -> Tensor:
        bases = str(content)[: self.longest].upper()
        if not bases or set(bases) - set("ACGT"):
            raise UndecodableError("not a sequence of A, C, G and T")
        return torch.tensor(["ACGT".index(base) + 1 for base in bases])

    def collate(self, samples: Sequence[Tensor]) -> Arguments:
        tokens = nn.utils.rnn.pad_sequence(list(samples), batch_first=True)
        return Arguments((tokens,), {"attend": tokens > 0}, mask=tokens > 0)

    def describe(self) -> dict[str, Any]:
        return {"kind": self.kind, "longest": self.longest}

    def example(self, count: int) -> Arguments:
        return self.collate([self.sample("ACGTTGCA"[: 5 + i % 3]) for i in range(count)])


class Motifs(nn.Module):
    """A small network: convolutions over the sequence, and the mean over its bases."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(5, 8, padding_idx=0)
        self.layer = nn.Conv1d(8, 16, 1)

    def forward(self, tokens: Tensor, attend: Tensor) -> Tensor:
        found = self.layer(self.embed(tokens).transpose(1, 2)).relu() * attend[:, None]
        return found.sum(2) / attend.sum(1, keepdim=True)


def make() -> tuple[nn.Module, Inputs]:
    torch.manual_seed(0)
    return Motifs(), Dna()
