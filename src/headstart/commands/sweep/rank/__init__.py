"""``headstart sweep --backbones``: which backbone for this data."""
