"""Facts about any ``nn.Module``: its layers, modes, kinds, pooling, digests and identity."""
