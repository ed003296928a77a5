"""headstart's errors in the types that scikit-learn's conventions require.

scikit-learn wants a ``ValueError`` for invalid data or parameters; headstart wants a
:class:`~headstart.core.errors.HeadstartError`. What is raised here is both.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from headstart.core.errors import BackboneError, ConfigError, DataError, HeadError, HeadstartError


class InputError(DataError, HeadError, ValueError):
    """The data given to an estimator is not what it needs."""


class SettingsError(ConfigError, BackboneError, ValueError):
    """Parameters of an estimator are invalid; all faults are reported together."""


@contextmanager
def conventional() -> Iterator[None]:
    """Turn headstart's errors about data, heads and settings into those above.

    Errors of other kinds pass: files that cannot be read or a full disk are no bad values.
    """
    try:
        yield
    except (InputError, SettingsError):
        raise
    except ConfigError as error:
        raise SettingsError(error.faults, hint=error.hint) from error
    except BackboneError as error:
        raise SettingsError((error.message,), hint=error.hint) from error
    except HeadstartError as error:
        if type(error) not in (DataError, HeadError):
            raise
        raise InputError(error.message, hint=error.hint) from error


def raise_faults(estimator: object, faults: Sequence[str]) -> None:
    """Report the faults of an estimator's parameters, if there are any.

    Raises:
        SettingsError: naming all of them.
    """
    if faults:
        name = type(estimator).__name__
        raise SettingsError(tuple(f"{name}: {fault}" for fault in faults))
