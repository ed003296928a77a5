"""Feature rows on disk: appended in shards, committed atomically, verified, read back by id.

The format is specified in ``docs/store-format.md``. This package knows arrays, not models.
"""

from headstart.store.catalog import GcReport, Nearest, SpaceInfo
from headstart.store.columns import ColumnSpec
from headstart.store.describe import ABSENT, Difference, canonical_json, differences, space_key
from headstart.store.exchange import export_space, import_rows
from headstart.store.features import Column, FeatureSet
from headstart.store.memo import Memo
from headstart.store.neighbours import Neighbours
from headstart.store.results import Result, ResultInfo, Results, result_key
from headstart.store.search_index import SearchIndex
from headstart.store.space import Preflight, Space
from headstart.store.store import Store
from headstart.store.verify import Fault, VerifyReport

__all__ = [
    "ABSENT",
    "Column",
    "ColumnSpec",
    "Difference",
    "Fault",
    "FeatureSet",
    "GcReport",
    "Memo",
    "Nearest",
    "Neighbours",
    "Preflight",
    "Result",
    "ResultInfo",
    "Results",
    "SearchIndex",
    "Space",
    "SpaceInfo",
    "Store",
    "VerifyReport",
    "canonical_json",
    "differences",
    "export_space",
    "import_rows",
    "result_key",
    "space_key",
]
