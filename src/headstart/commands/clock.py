"""Transitional: see ``commands/session.py``."""

from headstart.commands.session import Clock

__all__ = ["Clock"]
