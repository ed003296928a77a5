"""Data where it lies: on object stores, behind HTTP and in tar files, read piece by piece.

:mod:`~headstart.data.far.address` reads folders and tables at an address,
:mod:`~headstart.data.far.tars` the tar files that WebDataset writes. Both leave the contents where
they are: items know a file, a place in it and a size (:mod:`~headstart.data.far.pieces`), or a row
of a table (:mod:`~headstart.data.far.rows`).
"""
