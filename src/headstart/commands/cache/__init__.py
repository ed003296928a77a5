"""``headstart cache``: what is stored."""
