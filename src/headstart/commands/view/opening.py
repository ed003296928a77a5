"""Opening what a page shows: items with their features, their map, and what a head says."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from headstart.backbones import Backbone
from headstart.commands.collection import Collection
from headstart.commands.judged import Judged, judged
from headstart.commands.open_collection import open_collection
from headstart.commands.prediction_table import Probabilities
from headstart.commands.scoring import outputs_of
from headstart.commands.session import Session
from headstart.commands.settings import BackboneSpec, ReadOptions, RunOptions
from headstart.commands.view.maps import pca_map, umap_map
from headstart.commands.view.options import ViewConfig
from headstart.commands.view.scene import Scene
from headstart.core.wording import count
from headstart.store import Result, result_key

_KEPT = 2_000_000
"""So many probabilities of a split are kept in the cache, 16 MB."""


def open_scene(
    items: Any,
    config: ViewConfig,
    run: RunOptions,
    reading: ReadOptions,
    spec: BackboneSpec | Backbone,
) -> Scene:
    """Open the items of a run, or data, with their map and what the head says of them.

    Args:
        items, config, run, reading, spec: as :func:`headstart.view` has settled them.

    Raises:
        ConfigError: settings that have no meaning for the items.
        DataError, BackboneError, StoreError: something cannot be read or computed.
    """
    session = Session(run)
    among = open_collection(
        session, items, reading, spec, data=config.data, trust_code=config.trust_code
    )
    place = umap_map(among, session, run.seed) if config.map == "umap" else pca_map(among, session)
    return Scene(among, _said(among, session), place, tuple(session.notes))


def _said(among: Collection, session: Session) -> Mapping[str, Judged]:
    """Return what the head of a run says of its items, by split; nothing where there is none."""
    head = among.head
    if head is None:
        return {}
    found = {}
    for name, split in among.splits.items():
        found[name] = judged(head, split, _outputs(among, name, session))
    trained = len(among.splits.get("train", ()))
    if trained:
        session.say(
            f"predictions for {count(trained, 'training item')} are too optimistic: the head was"
            " trained on them"
        )
    return found


def _outputs(among: Collection, name: str, session: Session) -> Probabilities:
    """Return what the head of a run says of a split; small ones are kept in the cache."""
    split, head = among.splits[name], among.head
    assert head is not None

    def compute() -> Probabilities:
        return outputs_of(head, among.joined(name))

    if among.head_digest is None or among.columns or len(split) * len(among.classes) > _KEPT:
        return compute()
    about = {"head": among.head_digest, "space": among.space, "ids": among.ids_digest}
    kept, _ = session.cache.store.results("outputs").once(
        result_key({**about, "split": name, "version": 1}),
        lambda: np.asarray(compute(), dtype=np.float64),
        lambda made: Result({"outputs": np.ascontiguousarray(made)}),
        lambda found: found.arrays["outputs"],
    )
    return kept


__all__ = ["open_scene"]
