"""The old order of the tutorial: scheduler.step() at the beginning of the epoch."""
import torch
from sklearn.datasets import load_digits
from torch import nn, optim
from torch.optim import lr_scheduler

X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X[:500] / 16).float(), torch.tensor(y[:500])
net = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
scheduler = lr_scheduler.StepLR(optimizer, step_size=1, gamma=0.5)
for epoch in range(3):
    for part in torch.randperm(500).split(100):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(net(X[part]), y[part])
        loss.backward()
        optimizer.step()
    scheduler.step()
    print(epoch, loss.item())
