"""Gradient checkpointing runs the forward of a block twice."""
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.checkpoint import checkpoint

X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X[:512] / 16).float(), torch.tensor(y[:512])


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(64, 48)
        self.blocks = nn.ModuleList(nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 48), nn.GELU(), nn.Dropout(0.1)) for _ in range(3))
        self.head = nn.Linear(48, 10)

    def forward(self, x):
        x = self.stem(x)
        for block in self.blocks:
            x = x + checkpoint(block, x, use_reentrant=False)
        return self.head(x)


net = Net()
opt = torch.optim.AdamW(net.parameters(), lr=3e-3)
for epoch in range(2):
    for part in torch.randperm(512).split(128):
        loss = nn.functional.cross_entropy(net(X[part]), y[part])
        opt.zero_grad()
        loss.backward()
        opt.step()
print(loss.item())
