"""Trains for ever."""
import torch
from torch import nn

net = nn.Linear(4, 2)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
while True:
    opt.zero_grad()
    net(torch.randn(8, 4)).square().mean().backward()
    opt.step()
