"""Takes arguments, and fails without them."""
import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--lr", type=float, required=True)
parser.add_argument("--steps", type=int, default=3)
arguments = parser.parse_args()
net = nn.Linear(4, 2)
opt = torch.optim.SGD(net.parameters(), lr=arguments.lr)
for _ in range(arguments.steps):
    opt.zero_grad()
    net(torch.randn(8, 4)).square().mean().backward()
    opt.step()
print("lr", arguments.lr)
