"""The options of ``push``."""

from __future__ import annotations

from dataclasses import dataclass

from headstart.commands.export.options import EXPORT, ExportConfig
from headstart.commands.settings import Signature
from headstart.core.settings import option


@dataclass(frozen=True)
class PushConfig(ExportConfig):
    """The settings of :func:`headstart.push`: those of ``export``, for a run, and of the hub.

    Attributes:
        public: whether a repository that is created is public.
        message: of the commit.
    """

    public: bool = option(False, "Create the hub repository as public.", panel="Hub")
    message: str = option("", "Commit message.", shown="Upload NAME", metavar="TEXT", panel="Hub")


PUSH = Signature("push", PushConfig(), without=EXPORT.without, hidden=("output",), builds=False)

__all__ = ["PUSH", "PushConfig"]
