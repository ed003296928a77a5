"""Whole jobs, one folder a command; Python and the command line call the same."""
