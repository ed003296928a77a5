"""Gradient accumulation with layer norm, which does not care."""
import torch
from sklearn.datasets import load_digits
from torch import nn

X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X[:512] / 16).float(), torch.tensor(y[:512])
net = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64), nn.GELU(), nn.Linear(64, 10))
opt = torch.optim.AdamW(net.parameters(), lr=3e-3)
for step, part in enumerate(torch.randperm(512).split(16)):
    (nn.functional.cross_entropy(net(X[part]), y[part]) / 4).backward()
    if step % 4 == 3:
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        opt.step()
        opt.zero_grad(set_to_none=True)
print("done")
