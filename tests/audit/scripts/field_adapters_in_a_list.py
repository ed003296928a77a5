"""Adapters in a Python list: model.parameters() does not know them, so they stay random."""
import torch
from torch import nn
from zoo import tensors


class Adapter(nn.Module):
    def __init__(self, d):
        super().__init__()
        self.down, self.up = nn.Linear(d, 8), nn.Linear(8, d)

    def forward(self, x):
        return x + self.up(torch.relu(self.down(x)))


class Net(nn.Module):
    def __init__(self, d=32):
        super().__init__()
        self.patch = nn.Conv2d(3, d, 8, 8)
        self.layers = nn.ModuleList([nn.TransformerEncoderLayer(d, 2, 64, dropout=0.0, batch_first=True) for _ in range(2)])
        for p in self.parameters():
            p.requires_grad = False
        self.adapters = [Adapter(d) for _ in range(2)]
        self.head = nn.Linear(d, 2)

    def forward(self, x):
        x = self.patch(x).flatten(2).mT
        for layer, adapter in zip(self.layers, self.adapters):
            x = adapter(layer(x))
        return self.head(x.mean(1))


torch.manual_seed(0)
x, y = tensors("train", 32)
x = (x - 0.5) / 0.5
model = Net()
optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-3)
for step in range(8):
    i = torch.randint(0, 32, (8,))
    loss = nn.functional.cross_entropy(model(x[i]), y[i])  # <- here
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()  # <- here
print(loss.item())
