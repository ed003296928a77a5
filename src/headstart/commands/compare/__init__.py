"""``headstart compare``: which way of running a backbone is right for the data."""
