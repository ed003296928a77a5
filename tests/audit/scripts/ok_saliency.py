"""A network is trained, evaluated, and asked which pixels its answer comes from."""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.images[:300] / 16, dtype=torch.float32)[:, None]
y = torch.tensor(digits.target[:300])
net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(),
    nn.Dropout(0.2), nn.Linear(16 * 64, 10),
)  # fmt: skip
optimizer = torch.optim.Adam(net.parameters(), 1e-3)
for epoch in range(3):
    net.train()
    for rows in torch.randperm(200).split(40):
        loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        right = (net(x[200:]).argmax(1) == y[200:]).float().mean()
    print(epoch, f"{right:.3f}")

image = x[200:201].clone().requires_grad_(True)
net(image)[0].max().backward()
print(image.grad.abs().sum() > 0)
