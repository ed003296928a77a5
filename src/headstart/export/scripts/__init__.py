"""What runs an artefact, without headstart: these files, and what of headstart they use, become its
``predict.py``.
"""
