"""``headstart export``: a run as an artefact that needs no headstart."""
