"""Static embeddings as a module: the mean of one vector a token."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class StaticNetwork(nn.Module):
    """The mean of the vectors of a text's tokens.

    Args:
        vectors: ``(rows, d)`` of any type; kept in float32.
        mapping: ``(tokens,)``, the row of each token; None: its own number.
        weights: ``(tokens,)``, a factor for each token; None: 1.
        unknown: the token that is left out, where words are not known; None: none is.
        normalise: whether rows are divided by their length.
    """

    def __init__(
        self,
        vectors: Tensor,
        mapping: Tensor | None = None,
        weights: Tensor | None = None,
        unknown: int | None = None,
        normalise: bool = False,
    ) -> None:
        super().__init__()
        self.embed = nn.Embedding(len(vectors), vectors.shape[1], _weight=vectors.float())
        self.mapping: Tensor | None
        self.weights: Tensor | None
        self.register_buffer("mapping", None if mapping is None else mapping.long())
        self.register_buffer("weights", None if weights is None else weights.float())
        self.unknown = unknown
        self.normalise = normalise

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Return one row a text.

        Args:
            input_ids: ``(n, tokens) int64``; numbers beyond the last are the last.
            attention_mask: ``(n, tokens) int64``, 1 where a token belongs to the text.

        Returns:
            ``(n, d) float32``; zero where no token counts.
        """
        mapping, weights = self.mapping, self.weights
        known = len(self.embed.weight) if mapping is None else len(mapping)
        tokens = input_ids.clamp(max=known - 1)
        vectors = self.embed(tokens if mapping is None else mapping[tokens])
        counts = attention_mask
        if self.unknown is not None:
            counts = counts * (input_ids != self.unknown)
        factors = counts if weights is None else counts * weights[tokens]
        total = (vectors * factors.unsqueeze(-1).to(vectors.dtype)).sum(1)
        rows: Tensor = total / counts.sum(1, keepdim=True).clamp(min=1)
        if self.normalise:
            rows = rows / (torch.linalg.vector_norm(rows, dim=1, keepdim=True) + 1e-32)
        return rows


__all__ = ["StaticNetwork"]
