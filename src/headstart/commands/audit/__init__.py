"""``headstart audit``: its options, its job, what it prints."""
