"""Validation after every epoch; training goes on afterwards."""
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import DataLoader, TensorDataset, random_split

X, y = load_digits(return_X_y=True)
data = TensorDataset(torch.tensor(X / 16).float().view(-1, 1, 8, 8), torch.tensor(y))
train, val = random_split(data, [1500, 297], generator=torch.Generator().manual_seed(0))

cnn = nn.Sequential(
    nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Dropout(0.25), nn.Flatten(), nn.Linear(16 * 16, 10),
)
opt = torch.optim.Adam(cnn.parameters(), lr=3e-3)


def validate():
    cnn.eval()  # <- here
    with torch.no_grad():
        hits = sum((cnn(a).argmax(1) == b).sum().item() for a, b in DataLoader(val, 99))
    return hits / len(val)


cnn.train()
for epoch in range(3):
    for a, b in DataLoader(train, batch_size=250, shuffle=True):
        opt.zero_grad()
        loss = nn.functional.cross_entropy(cnn(a), b)
        loss.backward()
        opt.step()
    print(f"epoch {epoch}: loss {loss.item():.3f}, validation {validate():.3f}")
