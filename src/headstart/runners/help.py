"""A crew as the cache calls it: a job out of what the cache is asked for."""

from __future__ import annotations

from collections.abc import Sequence

from headstart.backbones import Backbone
from headstart.cache import FeatureCache
from headstart.cache.features import Crew as Helping
from headstart.core.progress import Reporter
from headstart.data import NumberedView, Split
from headstart.extraction import Extraction
from headstart.runners.job import Job
from headstart.runners.table import Crew


def crew_of(crew: Crew) -> Helping:
    """Return what a :class:`~headstart.cache.FeatureCache` takes as its ``crew``."""

    def help_out(
        cache: FeatureCache,
        cuts: Sequence[Backbone],
        splits: Sequence[Split],
        settings: Extraction,
        view: NumberedView | None,
        reporter: Reporter,
    ) -> None:
        crew.run(Job(tuple(cuts), tuple(splits), settings, cache.address, view), reporter)

    return help_out


__all__ = ["crew_of"]
