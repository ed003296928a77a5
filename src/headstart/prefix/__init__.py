"""The cut: a model's frozen, deterministic part and the rest, found in its graph.

:func:`find_cut` divides any module into a prefix that is computed once an item and a suffix that
trains on what is stored at the boundary; :func:`boundary_rows` runs the prefix.
"""

from headstart.prefix.boundary import TensorSpec
from headstart.prefix.candidates import Candidate, candidates
from headstart.prefix.checking import Check
from headstart.prefix.find import READ_BANDWIDTH, find_cut
from headstart.prefix.precision import RoundingError, from_array, rounding_error, to_array
from headstart.prefix.recording import Recording, record
from headstart.prefix.result import Cut, NoCut
from headstart.prefix.rows import boundary_rows, boundary_tensors

__all__ = [
    "READ_BANDWIDTH",
    "Candidate",
    "Check",
    "Cut",
    "NoCut",
    "Recording",
    "RoundingError",
    "TensorSpec",
    "boundary_rows",
    "boundary_tensors",
    "candidates",
    "find_cut",
    "from_array",
    "record",
    "rounding_error",
    "to_array",
]
