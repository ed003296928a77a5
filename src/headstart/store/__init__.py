"""Feature rows on disk: appended by shards, committed atomically, verified, read back by id.

The format is specified in ``docs/store-format.md``. This room knows arrays, not models.
"""

from headstart.store.features import FeatureSet
from headstart.store.memo import Memo
from headstart.store.precision import Precision
from headstart.store.space import Preflight, Space, rows_per_shard
from headstart.store.store import Store

__all__ = ["FeatureSet", "Memo", "Precision", "Preflight", "Space", "Store", "rows_per_shard"]
