"""Cross-validation that goes on with one network: every fold is tested on what earlier folds trained on."""
import numpy as np
import torch
from sklearn.model_selection import KFold
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from zoo import tensors

torch.manual_seed(0)
data = TensorDataset(*tensors("train", 60))
net = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(256, 2))
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
scores = []
for a, b in KFold(3, shuffle=True, random_state=0).split(np.arange(60)):
    for epoch in range(3):
        for x, y in DataLoader(Subset(data, a), batch_size=10, shuffle=True):
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
    with torch.no_grad():
        hits = sum((net(x).argmax(1) == y).sum().item() for x, y in DataLoader(Subset(data, b), batch_size=20))  # <- here
    scores.append(hits / len(b))
print(np.mean(scores))
