"""What holds for any ``nn.Module``: running it, its layers, modes, poolings, digests, identity."""
