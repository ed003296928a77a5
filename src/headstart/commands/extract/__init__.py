"""``headstart extract``: features of a data set into the cache, by one machine or many."""
