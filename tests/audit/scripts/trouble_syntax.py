"""Is not Python at all."""
import torch

for step in range(3)
    print(step)
