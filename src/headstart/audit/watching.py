"""``with headstart.audit.watch(model) as watch:`` the same observation, from inside a program."""

from __future__ import annotations

from types import TracebackType

from torch import nn

from headstart.audit.checks import all_checks
from headstart.audit.observer import Observer
from headstart.audit.records import Finding, Report
from headstart.core.errors import ConfigError

_running: list[Observer] = []


class Watch:
    """Observes what happens inside a ``with`` block.

    Attributes:
        findings: what has been found so far, or in the whole block once it has ended.
    """

    def __init__(self, *models: nn.Module) -> None:
        wrong = next((each for each in models if not isinstance(each, nn.Module)), None)
        if wrong is not None:
            raise ConfigError(
                (f"watch takes networks (torch.nn.Module), not a {type(wrong).__name__}",)
            )
        self._observer = Observer(all_checks())
        self._models = models

    def __enter__(self) -> Watch:
        if _running:
            raise ConfigError(
                ("an audit is already running, and two would see each other's hooks",),
                hint="leave the outer watch first",
            )
        _running.append(self._observer)
        self._observer.install()
        for model in self._models:
            self._observer.introduce(model)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._observer.remove()
        _running.remove(self._observer)
        if error is not None:
            self._observer.crashed(error)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """What has been found so far; the worst first."""
        return self._observer.findings()

    @property
    def report(self) -> Report:
        """The findings, and how much was seen."""
        scene, findings = self._observer.scene, self.findings
        return Report(findings, scene.steps, scene.n_passes, None, tuple(scene.notes))


def watch(*models: nn.Module) -> Watch:
    """Observe networks, optimizers and data loaders inside a ``with`` block.

    What runs in the block computes the same numbers as without it::

        with headstart.audit.watch(model) as watch:
            train(model)
        codes = [finding.code for finding in watch.findings]

    Args:
        models: networks whose state before the block matters, such as frozen ones; whatever else
            runs in the block is observed too.

    Raises:
        ConfigError: an argument is no network, or another audit is running.
    """
    return Watch(*models)


__all__ = ["Watch", "watch"]
