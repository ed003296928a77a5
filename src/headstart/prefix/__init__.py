"""Find the frozen, deterministic part of a network in its graph, and cut the network behind it.

:func:`find_cut` divides any module into a prefix that is computed once an item and a suffix that
trains on what is stored at the boundary.
"""

from headstart.prefix.boundary import (
    RoundingError,
    TensorSpec,
    boundary_tensors,
    from_array,
    rounding_error,
    to_array,
)
from headstart.prefix.candidates import Candidate, candidates
from headstart.prefix.checking import Check
from headstart.prefix.result import Cut, NoCut
from headstart.prefix.search import READ_BANDWIDTH, Recording, find_cut, record

__all__ = [
    "READ_BANDWIDTH",
    "Candidate",
    "Check",
    "Cut",
    "NoCut",
    "Recording",
    "RoundingError",
    "TensorSpec",
    "boundary_tensors",
    "candidates",
    "find_cut",
    "from_array",
    "record",
    "rounding_error",
    "to_array",
]
