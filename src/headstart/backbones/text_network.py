"""A transformer of texts as one module: tokens → hidden states → one row a text."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

POOLINGS = ("mean", "cls", "last", "max", "mean_sqrt_len", "weighted_mean")
"""How hidden states become one row: the mean over the tokens of the text; its first token; its
last token; the largest value; the sum divided by the root of the number of tokens; the mean
weighted by the position, from 1."""


class TokenPooling(nn.Module):
    """From hidden states to one row a text; padding takes no part.

    Args:
        ways: of :data:`POOLINGS`; the rows of several are joined.
    """

    def __init__(self, ways: Sequence[str]) -> None:
        super().__init__()
        self.ways = tuple(ways)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Pool.

        Args:
            states: ``(n, tokens, d)``.
            mask: ``(n, tokens)``, 1 where a token belongs to the text.

        Returns:
            ``(n, d)``, or ``(n, k·d)`` for k ways.
        """
        weights = mask.unsqueeze(-1).to(states.dtype)
        rows = [self._one(way, states, mask, weights) for way in self.ways]
        return rows[0] if len(rows) == 1 else torch.cat(rows, dim=1)

    def _one(self, way: str, states: Tensor, mask: Tensor, weights: Tensor) -> Tensor:
        if way == "cls":
            return states[:, 0]
        if way == "last":
            # the last token is the one that as many tokens precede as there are, less one
            last = (mask.cumsum(1) == mask.sum(1, keepdim=True)) * mask
            return (states * last.unsqueeze(-1).to(states.dtype)).sum(1)
        if way == "max":
            return states.masked_fill(weights == 0, float("-inf")).amax(1)
        if way == "weighted_mean":
            weights = weights * mask.cumsum(1).unsqueeze(-1).to(states.dtype)
        total, count = (states * weights).sum(1), weights.sum(1).clamp(min=1e-9)
        return total / (count.sqrt() if way == "mean_sqrt_len" else count)

    def extra_repr(self) -> str:
        """Return the ways of pooling."""
        return ", ".join(self.ways)


class UnitLength(nn.Module):
    """Divide every row by its Euclidean length."""

    def forward(self, rows: Tensor) -> Tensor:
        """Divide rows ``(n, d)``."""
        return nn.functional.normalize(rows, dim=1)


class TextNetwork(nn.Module):
    """A model of transformers with its pooling.

    Args:
        model: takes ``input_ids`` and ``attention_mask``, and returns hidden states.
        pooling: from hidden states to rows.
        after: what follows: projections, normalisation.
        settings: the configuration of the model as text, since some models read it in their
            forward pass: it is part of what they compute.
        caches: whether the model keeps keys and values for generation unless it is told not to.
    """

    def __init__(
        self,
        model: nn.Module,
        pooling: TokenPooling,
        after: Sequence[nn.Module],
        settings: str,
        caches: bool = False,
    ) -> None:
        super().__init__()
        self.model = model
        self.pooling = pooling
        self.after = nn.Sequential(*after)
        self.settings = settings
        self.caches = caches

    def forward(
        self, input_ids: Tensor, attention_mask: Tensor, token_type_ids: Tensor | None = None
    ) -> Tensor:
        """Return one row a text.

        Args:
            input_ids: ``(n, tokens) int64``, padded on the right.
            attention_mask: ``(n, tokens) int64``, 1 where a token belongs to the text.
            token_type_ids: ``(n, tokens) int64``, for models that take segments.

        Returns:
            ``(n, d) float32``.
        """
        more: dict[str, Any] = {} if token_type_ids is None else {"token_type_ids": token_type_ids}
        if self.caches:
            more["use_cache"] = False
        found = self.model(input_ids=input_ids, attention_mask=attention_mask, **more)
        rows = self.pooling(found[0], attention_mask)
        pooled: Tensor = self.after(rows)
        return pooled


__all__ = ["POOLINGS", "TextNetwork", "TokenPooling", "UnitLength"]
