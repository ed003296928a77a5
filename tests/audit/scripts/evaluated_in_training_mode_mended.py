"""A network from scratch with dropout; nobody calls eval()."""
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

digits = load_digits()
Xtr, Xte, ytr, yte = train_test_split(digits.data / 16, digits.target, stratify=digits.target, random_state=0)
Xtr, Xte = torch.tensor(Xtr).float(), torch.tensor(Xte).float()
ytr, yte = torch.tensor(ytr), torch.tensor(yte)

mlp = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 10))
sgd = torch.optim.SGD(mlp.parameters(), lr=0.1)
for epoch in range(3):
    mlp.train()
    for idx in torch.randperm(len(Xtr)).split(128):
        sgd.zero_grad()
        F.cross_entropy(mlp(Xtr[idx]), ytr[idx]).backward()
        sgd.step()
mlp.eval()
with torch.no_grad():
    predictions = mlp(Xte).argmax(1)
print("test accuracy:", (predictions == yte).float().mean().item())
