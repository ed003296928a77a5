"""Extraction: backbone + items → batches of rows. Knows no disk."""

from __future__ import annotations

from typing import TYPE_CHECKING

from headstart.core.lazy import contents

if TYPE_CHECKING:
    from headstart.extraction.engines import Engine as Engine
    from headstart.extraction.engines import EngineUnfitError as EngineUnfitError
    from headstart.extraction.engines import register_engine as register_engine
    from headstart.extraction.pipeline import Extractor as Extractor
    from headstart.extraction.pipeline import FeatureRows as FeatureRows
    from headstart.extraction.pipeline import extract as extract
    from headstart.extraction.precision import TOLERANCE as TOLERANCE
    from headstart.extraction.precision import autocast as autocast
    from headstart.extraction.settings import Extraction as Extraction
    from headstart.extraction.settings import Precision as Precision
    from headstart.extraction.settings import Storage as Storage

__getattr__, __dir__, __all__ = contents(
    __name__,
    {
        "engines": ("Engine", "EngineUnfitError", "register_engine"),
        "pipeline": ("Extractor", "FeatureRows", "extract"),
        "precision": ("TOLERANCE", "autocast"),
        "settings": ("Extraction", "Precision", "Storage"),
    },
)
