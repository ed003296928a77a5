"""``headstart serve``."""
