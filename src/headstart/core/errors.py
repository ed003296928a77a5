"""One base error and a few named ones.

Every message states what was expected, what was found, where, and what to do about it. The
command line prints ``str(error)`` on one line; a library user catches :class:`HeadstartError`.
"""

from __future__ import annotations

from typing import Any


class HeadstartError(Exception):
    """A fault in the input or the environment that the user can fix.

    Args:
        message: what was expected and what was found, and where; one sentence, no full stop.
        hint: what to do; one sentence, no full stop.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        # Worker processes pickle their errors, and subclasses take other arguments than a message.
        return _rebuild, (type(self), self.args, dict(self.__dict__))

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}; {self.hint}"


def _rebuild(
    kind: type[HeadstartError], arguments: tuple[Any, ...], state: dict[str, Any]
) -> HeadstartError:
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(state)
    return error


class DataError(HeadstartError):
    """The data cannot be read, or is not what the task needs."""


class UnreachableError(DataError):
    """What holds the data refuses or does not answer. No item is to blame, and none is left out."""


class BadFilesError(DataError):
    """Some items cannot be decoded. ``files`` lists all of them with the reason.

    Args:
        files: pairs of (where, why), in the order of the data.
        hint: what to do.
    """

    def __init__(self, files: tuple[tuple[str, str], ...], *, hint: str | None = None) -> None:
        shown = "; ".join(f"{where} ({why})" for where, why in files[:20])
        more = f"; and {len(files) - 20} more" if len(files) > 20 else ""
        count = "1 item" if len(files) == 1 else f"{len(files)} items"
        super().__init__(f"{count} cannot be read: {shown}{more}", hint=hint)
        self.files = files


class BackboneError(HeadstartError):
    """A backbone cannot be built, cut or loaded with these weights."""


class FreezeError(HeadstartError):
    """A freeze policy is contradictory, matches nothing, or was broken."""


class StoreError(HeadstartError):
    """Stored features cannot be read, written or trusted."""


class HeadError(HeadstartError):
    """A head cannot be trained on, loaded for, or applied to these features."""


class ConfigError(HeadstartError):
    """A configuration has faults, which are all reported together.

    Args:
        faults: one sentence each, no full stop.
        hint: what to do.
    """

    def __init__(self, faults: tuple[str, ...], *, hint: str | None = None) -> None:
        super().__init__("; ".join(faults), hint=hint)
        self.faults = faults


class MissingExtraError(HeadstartError):
    """An optional dependency is not installed.

    Args:
        package: the import name that is missing.
        extra: the extra of headstart that installs it.
        purpose: what it is needed for, as a noun phrase.
    """

    def __init__(self, package: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package '{package}', which is not installed",
            hint=f"run: pip install 'headstart[{extra}]'",
        )
        self.package = package
        self.extra = extra
