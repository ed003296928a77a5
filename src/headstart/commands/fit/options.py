"""The options of ``fit``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from headstart.commands.settings import Signature, head_wrong
from headstart.core.errors import ConfigError
from headstart.core.settings import check, option
from headstart.heads.registry import describe_heads, head_for


@dataclass(frozen=True)
class FitConfig:
    """The settings of :func:`headstart.fit`.

    Attributes:
        head: a kind of head in the registry (:func:`headstart.heads.head_kinds`). ``auto``, the
            default, takes what wins inside the training split among ``linear`` (multinomial
            logistic regression, its penalty chosen by cross-validation), ``ridge``, ``lda`` and
            ``prototype``; see :func:`headstart.heads.chooser.choose_head`.
        head_options: options of that kind, by name.
        folds: folds of the cross-validation, where the head uses one.
        baselines: whether to compute figures to beat.
    """

    head: str = option("auto", describe_heads, check=head_wrong)
    head_options: Mapping[str, Any] = option(
        {}, "Options of the head by name, such as '{\"standardise\": false}'."
    )
    folds: int = option(5, "Folds of the cross-validation inside the training split.", at_least=2)
    baselines: bool = option(True, "The figures to beat, on the same test items.")

    def __post_init__(self) -> None:
        check(self)

    def faults(self) -> list[str]:
        """Look at the options of the head."""
        try:
            head_for(self.head, self.head_options).settings(self.head_options, folds=self.folds)
        except ConfigError as error:
            return list(error.faults)
        return []


FIT = Signature("fit", FitConfig())


__all__ = ["FIT", "FitConfig"]
