"""Crashes in the third step, for a reason of its own."""
import torch
from torch import nn

net = nn.Linear(4, 2)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
for step in range(5):
    x = torch.randn(8, 4 if step < 3 else 5)
    loss = net(x).square().mean()  # <- here
    opt.zero_grad()
    loss.backward()
    opt.step()
