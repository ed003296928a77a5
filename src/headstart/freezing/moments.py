"""Mean and variance that can be merged exactly, from batches or passes."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from headstart.core.devices import doubled


@dataclass(frozen=True, eq=False)
class Moments:
    """Count, mean and sum of squared deviations of one layer's input, per channel.

    Attributes:
        count: how many values each channel has seen (items times positions).
        mean: ``(c,) float64`` on the CPU.
        m2: ``(c,) float64`` on the CPU, the sum of squared deviations from ``mean``.
    """

    count: int
    mean: Tensor
    m2: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Moments:
        """Measure a batch.

        Args:
            x: ``(n, c, ...)``, any float dtype and device; channels are dimension 1, as in all
                batch norms of torch. Sums are in float64, in two passes over the batch.
        """
        wide = doubled(x.detach())
        axes = [0, *range(2, x.ndim)]
        count = x.numel() // max(x.shape[1], 1)
        mean = wide.mean(axes)
        shape = (1, -1, *([1] * (x.ndim - 2)))
        m2 = (wide - mean.view(shape)).square().sum(axes)
        return cls(count, mean.cpu(), m2.cpu())

    def merge(self, other: Moments) -> Moments:
        """Return the moments of both together.

        The pairwise update of Chan, Golub and LeVeque (1983), "Algorithms for computing the
        sample variance", equations 2.1: free of the cancellation of sums of squares.
        """
        count = self.count + other.count
        if not count:
            return self
        delta = other.mean - self.mean
        weight = other.count / count
        mean = self.mean + delta * weight
        m2 = self.m2 + other.m2 + delta.square() * (self.count * weight)
        return Moments(count, mean, m2)

    @property
    def variance(self) -> Tensor:
        """The population (biased) variance, ``(c,) float64``, by which a batch is normalised.

        In training, a batch norm normalises by it but stores the unbiased variance, larger by
        ``n / (n - 1)``, as its running variance.
        """
        return self.m2 / self.count


__all__ = ["Moments"]
