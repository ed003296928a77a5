"""Asks a question on standard input."""
import torch
from torch import nn

name = input("name of the run? ")
net = nn.Linear(4, 2)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
net(torch.randn(8, 4)).square().mean().backward()
opt.step()
print("run", name)
