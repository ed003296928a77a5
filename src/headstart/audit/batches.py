"""Watches data loaders give out batches."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from headstart.audit import events
from headstart.audit.facts import LoaderFacts
from headstart.audit.hub import Hub
from headstart.audit.passes import PassWatcher
from headstart.audit.places import user_place
from headstart.modules.observing import tensors_in


class BatchWatcher:
    """Wraps iteration over data loaders."""

    def __init__(self, hub: Hub, passes: PassWatcher) -> None:
        self.hub, self.passes = hub, passes
        self._loaders: dict[int, LoaderFacts] = {}

    def around_iter(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the beginning of an epoch."""

        def iterate(loader: Any) -> Any:
            if self.hub.elsewhere():
                return original(loader)
            facts = self._loader_facts(loader)
            facts.epochs += 1
            self.passes.look_closely()
            self.hub.scene.end_between()
            iterator = original(loader)
            # Persistent workers give the same iterator again.
            iterator.__dict__["_headstart_audit"] = [facts, 0]
            return iterator

        return iterate

    def _loader_facts(self, loader: Any) -> LoaderFacts:
        key = id(loader)
        found = self._loaders.get(key)
        if found is None:

            def forget(_ref: Any) -> None:
                self._loaders.pop(key, None)

            number = len(self.hub.scene.loaders)
            found = LoaderFacts(number, weakref.ref(loader, forget), user_place())
            self._loaders[key] = found
            self.hub.scene.loaders.append(found)
        return found

    def around_next(self, original: Callable[..., Any]) -> Callable[..., Any]:
        """Wrap the giving out of a batch."""

        def following(iterator: Any) -> Any:
            mark = iterator.__dict__.get("_headstart_audit")
            if mark is None or self.hub.elsewhere():
                return original(iterator)
            facts = mark[0]
            self.hub.scene.end_between()
            try:
                data = original(iterator)
            except StopIteration:
                facts.complete += 1
                self.passes.over = True
                raise
            self.passes.loader, self.passes.over = facts, False
            self.passes.given = next((len(t) for t in tensors_in(data) if t.ndim), None)
            facts.batches += 1
            mark[1] += 1
            if self.hub.listens("on_batch"):
                dataset = getattr(iterator, "_dataset", None)
                seen = events.Batch(facts, mark[1] - 1, user_place(), data, dataset)
                self.hub.tell("on_batch", seen)
                seen.data = seen.dataset = None
            return data

        return following


__all__ = ["BatchWatcher"]
