"""A transfer-learning script under observation: what is wrong with it, where, and how to mend it.

``headstart audit SCRIPT.py`` runs an unmodified script and prints findings; :func:`watch` does the
same from inside a program. ``docs/findings`` describes every finding, and
``headstart.audit.checks`` how to add one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.core.lazy import contents

if TYPE_CHECKING:
    from headstart.audit.check import Check as Check
    from headstart.audit.checks import register_check as register_check
    from headstart.audit.records import Ending as Ending
    from headstart.audit.records import Finding as Finding
    from headstart.audit.records import Report as Report
    from headstart.audit.running import audit_script as audit_script
    from headstart.audit.watching import Watch as Watch
    from headstart.audit.watching import watch as watch

__getattr__, __dir__, __all__ = contents(
    __name__,
    {
        "check": ("Check",),
        "checks": ("register_check",),
        "records": ("Ending", "Finding", "Report"),
        "running": ("audit_script",),
        "watching": ("Watch", "watch"),
    },
)
