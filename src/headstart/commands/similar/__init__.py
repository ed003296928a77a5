"""``headstart similar``: the items of a run, or of data, that are most like others."""
