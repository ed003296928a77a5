"""Low-rank adapters on a frozen transformer, from a stream of batches (IterableDataset with workers)."""
import math

import torch
from torch import nn
from torch.utils.data import DataLoader, IterableDataset, get_worker_info
from zoo import tensors


class LoRA(nn.Module):
    def __init__(self, base, r=2, alpha=4):
        super().__init__()
        self.base, self.scale = base, alpha / r
        self.A = nn.Parameter(torch.randn(r, base.in_features) / math.sqrt(r))
        self.B = nn.Parameter(torch.zeros(base.out_features, r))

    def forward(self, x):
        return self.base(x) + self.scale * (x @ self.A.T) @ self.B.T


class Block(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.n1, self.n2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.q, self.v, self.o = nn.Linear(d, d), nn.Linear(d, d), nn.Linear(d, d)
        self.mlp = nn.Sequential(nn.Linear(d, 2 * d), nn.GELU(), nn.Linear(2 * d, d))

    def forward(self, x):
        h = self.n1(x)
        a = torch.softmax(self.q(h) @ h.transpose(1, 2) / 8, -1) @ self.v(h)
        x = x + self.o(a)
        return x + self.mlp(self.n2(x))


class Net(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.patch = nn.Conv2d(3, d, 8, 8)
        self.blocks = nn.Sequential(Block(d), Block(d))
        self.out = nn.LayerNorm(d)
        self.classifier = nn.Linear(d, 2)

    def forward(self, x):
        return self.classifier(self.out(self.blocks(self.patch(x).flatten(2).mT)).mean(1))


class Stream(IterableDataset):
    def __init__(self, n):
        self.x, self.y = tensors("train", n)

    def __iter__(self):
        info = get_worker_info()
        start, step = (0, 1) if info is None else (info.id, info.num_workers)
        for i in range(start, len(self.x), step):
            yield (self.x[i] - 0.5) / 0.5, self.y[i]


torch.manual_seed(0)
net = Net()
for p in net.parameters():
    p.requires_grad = False
for block in net.blocks:
    block.q, block.v = LoRA(block.q), LoRA(block.v)
for p in net.classifier.parameters():
    p.requires_grad = True
optimizer = torch.optim.AdamW(filter(lambda p: p.requires_grad, net.parameters()), lr=1e-3)
for epoch in range(3):
    for x, y in DataLoader(Stream(32), batch_size=8, num_workers=1):
        loss = nn.functional.cross_entropy(net(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())
