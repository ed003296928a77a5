"""``headstart suggest``: which items to label next."""
