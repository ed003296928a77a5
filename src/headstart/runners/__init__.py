"""Runners: who computes missing rows — this process, several, the members of a job array, Ray.

Each works off the same plan of shards (:mod:`~headstart.runners.plan`) with the same code
(:mod:`~headstart.runners.share`), and the store takes every row once, whoever computes it. So a
runner only starts workers, replaces those that die and adds up their reports. It is entered in a
table (:mod:`~headstart.runners.table`); nothing heavy is imported before one runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.core.lazy import contents

if TYPE_CHECKING:
    from headstart.runners.job import Job as Job
    from headstart.runners.job import Ran as Ran
    from headstart.runners.reducing import over_processes as over_processes
    from headstart.runners.reducing import over_ray as over_ray
    from headstart.runners.share import work as work
    from headstart.runners.table import LOCAL as LOCAL
    from headstart.runners.table import Crew as Crew
    from headstart.runners.table import Runner as Runner
    from headstart.runners.table import describe_runners as describe_runners
    from headstart.runners.table import register_runner as register_runner
    from headstart.runners.table import runner_names as runner_names

__getattr__, __dir__, __all__ = contents(
    __name__,
    {
        "table": (
            "LOCAL",
            "Crew",
            "Runner",
            "describe_runners",
            "register_runner",
            "runner_names",
        ),
        "job": ("Job", "Ran"),
        "reducing": ("over_processes", "over_ray"),
        "share": ("work",),
    },
)
