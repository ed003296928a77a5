"""``headstart backbones``: what there is, and where it can be cut."""
