"""Monte-Carlo dropout: at test time, dropout alone is switched on on purpose."""
import torch
from sklearn.datasets import load_digits
from torch import nn

X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X / 16).float(), torch.tensor(y)
net = nn.Sequential(nn.Linear(64, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout(0.3), nn.Linear(64, 10))
opt = torch.optim.Adam(net.parameters(), lr=3e-3)
net.train()
for part in torch.randperm(1500).split(100):
    opt.zero_grad()
    nn.functional.cross_entropy(net(X[part]), y[part]).backward()
    opt.step()
net.eval()
for module in net.modules():
    if isinstance(module, nn.Dropout):
        module.train()
with torch.no_grad():
    samples = torch.stack([net(X[1500:]).softmax(1) for _ in range(8)])
print("accuracy", (samples.mean(0).argmax(1) == y[1500:]).float().mean().item(), "spread", samples.std(0).mean().item())
