"""Handing a run on: one module of PyTorch's, and artefacts that need no headstart."""
