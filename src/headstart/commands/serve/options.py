"""The options of ``serve``."""

from __future__ import annotations

from dataclasses import dataclass, fields

from headstart.commands.predict.options import AnswerConfig
from headstart.commands.settings import ReadOptions, RunOptions, Signature
from headstart.core.settings import option

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class ServeConfig(AnswerConfig):
    """The settings of :func:`headstart.serve`; a coverage and strange items are as for ``predict``.

    Attributes:
        host: the address that is listened on; the default takes requests of this machine alone.
        port: 0 takes a free one.
        top: how many classes an answer names.
        max_items: images or texts of one request.
        max_body: megabytes of one request.
        max_pixels: millions of pixels of one image; what a file says of its size is read before
            its pixels are.
        queue: items that may wait or be computed; a request that finds no room is answered 503
            with the seconds after which to come again.
        wait: milliseconds that a batch waits for items that are being decoded; one that is alone
            never waits.
        grace: seconds that requests in flight have when the service is told to stop.
    """

    host: str = option(LOOPBACK, "Address to listen on; 0.0.0.0 also accepts other machines.")
    port: int = option(8000, "Port; 0 takes a free one.", at_least=0, at_most=65535)
    top: int = option(3, "Classes per item.", at_least=1)
    max_items: int = option(64, "Most images or texts per request.", at_least=1)
    max_body: float = option(32.0, "Most megabytes per request.", above=0)
    max_pixels: float = option(50.0, "Most megapixels per image.", above=0)
    queue: int = option(
        256, "Most items waiting; beyond that, requests are answered with 503.", at_least=1
    )
    wait: float = option(5.0, "Milliseconds that a batch waits for further items.", at_least=0)
    grace: float = option(
        30.0, "Seconds to finish requests in flight when the service is stopped.", at_least=0
    )

    def faults(self) -> list[str]:
        """Refuse a queue that cannot hold the largest request."""
        found = super().faults()
        if self.queue < self.max_items:
            found.append(
                f"queue={self.queue} holds fewer items than one request may bring:"
                f" max_items={self.max_items}"
            )
        return found


_OF_THE_RUN = "the run determines it"
_NOT_READ = {each.name: "items come with requests" for each in fields(ReadOptions)}
SERVE = Signature(
    "serve",
    ServeConfig(),
    RunOptions(batch_size=16),
    without={
        **_NOT_READ,
        "value_range": _OF_THE_RUN,
        "precision": _OF_THE_RUN,
        "storage": _OF_THE_RUN,
        "seed": "it makes no random choices",
        "on_bad": "every item is answered on its own",
        "runner": "requests are computed in this process",
        "runner_workers": "requests are computed in this process",
        "address": "requests are computed in this process",
        "actor_cpus": "requests are computed in this process",
        "actor_gpus": "requests are computed in this process",
        "out": "it writes no run folder",
        "write": "it writes no run folder",
    },
    builds=False,
)

__all__ = ["LOOPBACK", "SERVE", "ServeConfig"]
