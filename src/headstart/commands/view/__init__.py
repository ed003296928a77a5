"""``headstart view``: a map of the items of a run, or of data, on a page of this machine."""
