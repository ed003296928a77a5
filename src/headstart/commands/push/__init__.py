"""``headstart push``: a run or an artefact to a hub."""
