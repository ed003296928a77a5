"""``headstart card``: the model card of a run."""
