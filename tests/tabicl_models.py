"""Small checkpoints of TabICL's with random weights, in its own format."""

from __future__ import annotations

from pathlib import Path

import torch


def save(path: Path, task: str = "classification", seed: int = 0) -> Path:
    """Write a checkpoint of a few thousand parameters; returns its path."""
    from tabicl._model.tabicl import TabICL

    config = {
        "max_classes": 10 if task == "classification" else 0,
        "num_quantiles": 9, "embed_dim": 16, "zero_init": False,
        "col_num_blocks": 1, "col_nhead": 2, "col_num_inds": 8,
        "row_num_blocks": 1, "row_nhead": 2, "row_num_cls": 2,
        "icl_num_blocks": 2, "icl_nhead": 2,
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = TabICL(**config)
    torch.save({"config": config, "state_dict": model.state_dict()}, path)
    return path
