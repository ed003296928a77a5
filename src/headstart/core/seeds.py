"""What a seed may be."""

from __future__ import annotations

from numbers import Integral

from headstart.core.errors import HeadError


def seed_faults(*seeds: object) -> list[str]:
    """Return what is wrong with the seeds of a run, one sentence each."""
    faults = [
        f"a seed is a whole number from 0, not {seed!r}"
        for seed in seeds
        if not (isinstance(seed, Integral) and int(seed) >= 0)
    ]
    if len(set(seeds)) < len(seeds):
        listed = ", ".join(map(str, seeds))
        faults.append(f"a seed given twice would repeat the same figures, found {listed}")
    return faults


def require_seeds(*seeds: int) -> None:
    """Refuse seeds that :func:`seed_faults` finds fault with.

    Raises:
        HeadError: naming every fault.
    """
    faults = seed_faults(*seeds)
    if faults:
        raise HeadError("; ".join(faults))


__all__ = ["require_seeds", "seed_faults"]
