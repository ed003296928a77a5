"""``headstart sweep``: every head on every layer, chosen honestly."""
