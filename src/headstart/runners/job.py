"""What a runner is given, and what each of its workers reports."""

from __future__ import annotations

import dataclasses
import pickle
from collections.abc import Sequence
from dataclasses import dataclass, field

from headstart.backbones import Backbone
from headstart.cache import FeatureCache
from headstart.cache.fill import missing_rows
from headstart.core.errors import ConfigError
from headstart.core.progress import SilentReporter
from headstart.core.stages import Throughput
from headstart.data import NumberedView, Split
from headstart.extraction import Extraction
from headstart.runners.plan import Shard, shards_of


@dataclass(frozen=True, eq=False)
class Job:
    """Rows to compute. It can be pickled where the backbone and the items can.

    Attributes:
        cuts: one network, cut at one or several places.
        splits: the items.
        settings: how to extract; ``precision`` is settled.
        place: of the cache: a folder that all workers see, or an address.
        view: a numbered augmentation; None: none.
    """

    cuts: tuple[Backbone, ...]
    splits: tuple[Split, ...]
    settings: Extraction
    place: str
    view: NumberedView | None = None

    @property
    def number(self) -> int:
        """Number of the view."""
        return 0 if self.view is None else self.view.number

    def shards(self) -> list[Shard]:
        """Return the plan."""
        return shards_of([split.ids for split in self.splits], self.settings.batch_size)

    def missing(self, cache: FeatureCache) -> list[str]:
        """Return the ids whose rows are missing."""
        spaces = [cache.space(cut, self.settings, self.view) for cut in self.cuts]
        ids = [key for split in self.splits for key in split.ids]
        return missing_rows(spaces, ids, self.number)

    def pickled(self) -> bytes:
        """Return the job as other processes take it.

        Raises:
            ConfigError: the backbone or the items cannot be sent.
        """
        # What a table says besides is not needed, and a reporter stays with its process.
        bare = [
            dataclasses.replace(split, reporter=SilentReporter(), groups=None, metadata=None)
            for split in self.splits
        ]
        try:
            return pickle.dumps(dataclasses.replace(self, splits=tuple(bare)))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise ConfigError(
                (f"the data or the backbone cannot be sent to other processes: {error}",),
                hint="give them by path, or define classes and functions in a module; or omit"
                " runner",
            ) from error


@dataclass(frozen=True)
class Ran:
    """What one worker did.

    Attributes:
        worker: its number, from 0.
        done: rows that it computed.
        seconds: that it worked.
        throughput: what its stages could do, each alone; None where it computed nothing.
        where: the machine.
        notes: what it had to say.
    """

    worker: int
    done: int
    seconds: float
    throughput: Throughput | None = None
    where: str = ""
    notes: tuple[str, ...] = field(default=())

    @property
    def binds(self) -> str:
        """The stage that is slowest; empty where nothing was computed."""
        return "" if self.throughput is None else self.throughput.binds


def summary(ran: Sequence[Ran], unit: str, seconds: float) -> str:
    """Say what a crew did: the rate of all, and of each worker with what binds it."""
    done = sum(each.done for each in ran)
    if not done or not seconds:
        return ""
    shown = sorted(ran, key=lambda each: each.worker)
    each = "; ".join(
        f"worker {one.worker}: {one.done:,}" + (f", {one.binds} binds" if one.binds else "")
        for one in shown[:8]
    )
    more = f"; and {len(shown) - 8} more" if len(shown) > 8 else ""
    plural = "worker" if len(shown) == 1 else "workers"
    return (
        f"{len(shown)} {plural} computed {done:,} {unit} at {done / seconds:,.1f} a second"
        f" ({each}{more})"
    )


__all__ = ["Job", "Ran", "summary"]
