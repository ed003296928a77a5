"""A contrastive siamese network: one tower runs twice per step, both times for training."""
import torch
from sklearn.datasets import load_digits
from torch import nn

X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X[:512] / 16).float().view(-1, 1, 8, 8), torch.tensor(y[:512])
tower = nn.Sequential(nn.Conv2d(1, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), nn.Flatten(), nn.Linear(16 * 36, 16))
opt = torch.optim.Adam(tower.parameters(), lr=1e-3)
tower.train()
for part in torch.randperm(512).split(64):
    partner = part[torch.randperm(len(part))]
    a, b = tower(X[part]), tower(X[partner])
    distance = (a - b).square().sum(1)
    same = (y[part] == y[partner]).float()
    loss = (same * distance + (1 - same) * (1 - distance.clamp_min(1e-6).sqrt()).clamp_min(0).square()).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
print(loss.item())
