"""``headstart finetune``: thaw in stages."""
