"""``headstart predict`` and ``headstart evaluate``."""
