"""``headstart fit``: from data to a tested classifier."""
