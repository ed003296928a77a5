"""Ends itself with a status of its own."""
import sys

import torch
from torch import nn

net = nn.Linear(4, 2)
opt = torch.optim.SGD(net.parameters(), lr=0.1)
net(torch.randn(8, 4)).square().mean().backward()
opt.step()
sys.exit(3)
