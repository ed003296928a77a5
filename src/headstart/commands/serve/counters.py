"""What a service counts, as Prometheus reads it."""

from __future__ import annotations

from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client import generate_latest as _text

CONTENT_TYPE = CONTENT_TYPE_LATEST
_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


class Counters:
    """The counters of one service, apart from those of the rest of the process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        inside: Any = {"namespace": "headstart", "registry": self._registry}
        self.requests = Counter("requests", "Requests by status.", ["status"], **inside)
        self.items = Counter("items", "Items received, by outcome.", ["is"], **inside)
        self.seconds = Histogram(
            "request_seconds", "From the first byte to the answer.", buckets=_SECONDS, **inside
        )
        self.batches = Histogram("batch_items", "Items per batch.", buckets=_SIZES, **inside)
        self.network = Histogram(
            "batch_seconds", "Seconds per batch in the network.", buckets=_SECONDS, **inside
        )
        self.pending = Gauge("pending_items", "Items waiting or being computed.", **inside)

    def batch(self, size: int, seconds: float) -> None:
        """Count one batch."""
        self.batches.observe(size)
        self.network.observe(seconds)

    def text(self) -> bytes:
        """Return all of them in Prometheus' format."""
        return _text(self._registry)


__all__ = ["CONTENT_TYPE", "Counters"]
