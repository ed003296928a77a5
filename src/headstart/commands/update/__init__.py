"""``headstart update``: new items and new classes join a run."""
