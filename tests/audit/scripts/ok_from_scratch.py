"""Trainable from scratch, batch norm and dropout, everything as it should be."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

X, y = load_digits(return_X_y=True)
X = torch.tensor(X / 16).float().view(-1, 1, 8, 8)
Xa, Xb, ya, yb = train_test_split(X, torch.tensor(y), test_size=0.25, random_state=0)
net = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
    nn.Flatten(), nn.Dropout(0.2), nn.Linear(32, 10),
)
opt = torch.optim.AdamW(net.parameters(), lr=3e-3, weight_decay=1e-2)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, T_max=3)
for epoch in range(3):
    net.train()
    for a, b in DataLoader(TensorDataset(Xa, ya), batch_size=128, shuffle=True, drop_last=True):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(net(a), b)
        loss.backward()
        opt.step()
    schedule.step()
net.eval()
with torch.no_grad():
    print("test accuracy", (net(Xb).argmax(1) == yb).float().mean().item())
