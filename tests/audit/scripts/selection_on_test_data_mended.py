"""The best epoch is the one with the best test accuracy, which is then reported."""
import copy

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

X, y = load_digits(return_X_y=True)
X = torch.tensor(X / 16).float()
Xa, Xb, ya, yb = train_test_split(X, torch.tensor(y), test_size=0.3, random_state=0)
Xa, Xv, ya, yv = train_test_split(Xa, ya, test_size=0.2, random_state=0)
train = DataLoader(TensorDataset(Xa, ya), batch_size=128, shuffle=True)
val, test = DataLoader(TensorDataset(Xv, yv), batch_size=256), DataLoader(TensorDataset(Xb, yb), batch_size=256)
model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.2), nn.Linear(64, 10))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)


def accuracy(loader):
    model.eval()
    with torch.no_grad():
        return sum((model(a).argmax(1) == b).sum().item() for a, b in loader) / len(loader.dataset)


best, best_state = 0.0, None
for epoch in range(4):
    model.train()
    for a, b in train:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(a), b).backward()
        optimizer.step()
    score = accuracy(val)
    if score > best:
        best, best_state = score, copy.deepcopy(model.state_dict())
model.load_state_dict(best_state)
print("test accuracy of the best epoch", accuracy(test))
