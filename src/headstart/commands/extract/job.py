"""Embed all items of a data set into the cache."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from headstart.backbones import Backbone
from headstart.commands.embedding import open_parts
from headstart.commands.extract.options import EXTRACT, ExtractConfig
from headstart.commands.session import Session
from headstart.commands.settings import BackboneLike, ReadOptions, RunOptions
from headstart.core.errors import BadFilesError, ConfigError, DataError
from headstart.core.records import CacheUse
from headstart.core.wording import clean, count, format_seconds
from headstart.data import Split
from headstart.data.far.tar_names import one_by_one
from headstart.extraction import Extractor
from headstart.runners.help import crew_of
from headstart.runners.table import Crew


@dataclass(frozen=True)
class Extracted:
    """What :func:`extract_features` did.

    Attributes:
        backbone: its name.
        place: where the features are: a folder or an address.
        space: the key of their space.
        shape: of the features of one item.
        items: how many there are, equal ones counted once each time.
        bad: how many cannot be read and were left out.
        use: rows found and rows computed.
        seconds: of reading and computing.
    """

    backbone: str
    place: str
    space: str
    shape: tuple[int, ...]
    items: int
    bad: int
    use: CacheUse
    seconds: float

    def describe(self) -> dict[str, Any]:
        """Return it in plain values."""
        return dataclasses.asdict(self)

    def lines(self) -> tuple[str, ...]:
        """Return it as the command line prints it."""
        rate = ""
        if self.use.misses and self.seconds:
            rate = f", {self.use.misses / self.seconds:,.1f} a second"
        shape = " × ".join(f"{size:,}" for size in self.shape)
        bad = f", {count(self.bad, 'item')} skipped" if self.bad else ""
        return (
            f"{count(self.items, 'item')}: {count(self.use.hits, 'row')} found, {self.use.misses:,}"
            f" computed in {format_seconds(self.seconds)}{rate}{bad}",
            f"features: {shape} per item, in {clean(self.place)}, space {self.space[:12]}",
        )


def extract_features(
    data: Any,
    backbone: BackboneLike = "auto",
    *,
    config: ExtractConfig | None = None,
    run: RunOptions | None = None,
    reading: ReadOptions | None = None,
    **overrides: Any,
) -> Extracted:
    """Embed the items of all splits of a data set, and keep the features in the cache.

    ``fit``, ``sweep`` and ``finetune`` with the same backbone, settings and cache then make no
    forward pass. Labels are not needed.

    Args:
        data: a :class:`~headstart.data.Split`, or anything :func:`headstart.load_data` or
            :func:`headstart.load_items` takes.
        backbone: a name, a :class:`~headstart.backbones.Backbone`, a module, or how to build one.
        config: which member of a job array this process is.
        run: how to run the backbone, who computes (``runner``), and the cache.
        reading: how to read the data.
        **overrides: single fields of these, such as ``runner="processes"``.

    Raises:
        BadFilesError: items cannot be read; everything readable has been embedded and kept.
        ConfigError, DataError, BackboneError, StoreError: see their packages.
    """
    config, run, reading, spec = EXTRACT.settle(overrides, config, run, reading, backbone)
    crew = _crew(config, run)
    session = Session(run)
    if crew is not None:
        session.cache.crew = crew_of(crew)
    sources = one_by_one(data) if crew is None and session.cache.crew is None else [data]
    splits, network = open_parts(session, sources[0], reading, spec)
    session.say(*network.notes, f"preprocessing: {network.inputs}")
    parts = [split for split in splits.values() if len(split)]
    settings = session.settle_precision((network,), parts)
    clock = session.clock
    with clock("extract"), Extractor((network,), settings, session.cache.plans()) as extractor:
        if session.cache.crew is not None:
            session.cache.help(extractor, parts, reporter=session.reporter)
        total = _extract(
            session, extractor, _in_turn(session, parts, sources[1:], reading, network)
        )
        if extractor.done:
            session.throughput = extractor.throughput()
    session.say_what_binds(network.inputs.unit)
    total.check()
    return Extracted(
        network.name,
        session.cache.address,
        session.cache.space(network, settings).key,
        network.feature_shape(),
        total.items,
        total.left_out,
        total.use,
        clock.seconds()["extract"],
    )


@dataclass
class _Total:
    """What was extracted so far.

    Attributes:
        items, left_out: how many there were, and how many cannot be read.
        use: rows found and rows computed.
        unreadable: pairs of (where, why), where bad items are an error.
    """

    items: int = 0
    left_out: int = 0
    use: CacheUse = field(default_factory=lambda: CacheUse(0, 0))
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def check(self) -> None:
        """Refuse items that cannot be read, where that was not allowed, or where all are."""
        if self.unreadable:
            raise BadFilesError(
                tuple(dict(self.unreadable).items()), hint="skip them with on_bad='skip'"
            )
        if self.items and self.left_out == self.items:
            raise DataError("none of the items can be read", hint="see the reasons above")


def _extract(session: Session, extractor: Extractor, splits: Iterable[Split]) -> _Total:
    """Extract splits one after the other."""
    total = _Total()
    for split in splits:
        total.items += len(split)
        try:
            found = session.cache.features(
                extractor,
                split,
                on_bad=session.run.on_bad,
                empty=True,
                reporter=session.reporter,
            )
        except BadFilesError as error:
            total.unreadable += error.files
            continue
        total.use += found.use
        total.left_out += len(split) - len(found.kept)
    return total


def _in_turn(
    session: Session,
    parts: Sequence[Split],
    sources: Sequence[Any],
    reading: ReadOptions,
    network: Backbone,
) -> Iterator[Split]:
    """Yield what is extracted, as it is read best: what lies elsewhere once, part by part.

    Args:
        session: of the command.
        parts: the splits that are open.
        sources: further ones, each opened when it is its turn.
        reading: how to read them.
        network: that takes the items.
    """
    for split in parts:
        if session.cache.crew is None:
            yield from split.stretches()
        else:
            yield split
    for source in sources:
        found = session.open_parts(source, reading, kind=network.inputs.kind)
        yield from _in_turn(
            session, [one for one in found.values() if len(one)], (), reading, network
        )


def _crew(config: ExtractConfig, run: RunOptions) -> Crew | None:
    """Return the crew of an array; None where the shared settings say it all."""
    given = [name for name in ("index", "of", "patience") if getattr(config, name) is not None]
    if run.runner != "array":
        if given:
            raise ConfigError(
                (f"{given[0]} is for a job array: also give runner='array'",),
            )
        return None
    from headstart.runners.array import member

    index, of = member(config.index, config.of)
    return Crew("array", index=index, of=of, patience=config.patience)


__all__ = ["ExtractConfig", "Extracted", "extract_features"]
