"""NLLLoss gets a softmax instead of a log-softmax."""
import torch
from torch import nn
from zoo import tensors

torch.manual_seed(0)
x, y = tensors("train", 48)
net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 32), nn.Tanh(), nn.Linear(32, 2), nn.Softmax(dim=1))
criterion, opt = nn.NLLLoss(), torch.optim.Adam(net.parameters(), 1e-3)
for epoch in range(2):
    for i in torch.randperm(48).split(12):
        loss = criterion(net(x[i]), y[i])  # <- here
        opt.zero_grad()
        loss.backward()
        opt.step()
