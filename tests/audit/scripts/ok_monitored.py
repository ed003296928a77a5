"""The test accuracy is printed and plotted after every epoch; nothing is chosen by it, the last one counts."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import tensors

torch.manual_seed(0)
train, test = DataLoader(TensorDataset(*tensors("train", 48)), 16, shuffle=True), DataLoader(TensorDataset(*tensors("test", 32)), 16)
net = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 2))
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
losses, accuracies = [], []
for epoch in range(5):
    net.train()
    for x, y in train:
        loss = nn.functional.cross_entropy(net(x), y)
        if not torch.isfinite(loss):
            break
        opt.zero_grad()
        loss.backward()
        opt.step()
        losses.append(loss.item())
    net.eval()
    with torch.no_grad():
        accuracies.append(sum((net(x).argmax(1) == y).sum().item() for x, y in test) / 32)
    print(f"epoch {epoch} loss {losses[-1]:.3f} test {accuracies[-1]:.3f}, lowest loss {min(losses):.3f}")
print("final test accuracy", accuracies[-1])
