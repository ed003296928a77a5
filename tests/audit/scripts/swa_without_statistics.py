"""Stochastic weight averaging by hand; the averaged network is evaluated at the end."""
import copy

import torch
from torch import nn, optim
from torch.optim.swa_utils import update_bn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors

(xa, ya), (xb, yb) = tensors("train", 32), tensors("test", 16)
loader = DataLoader(TensorDataset(xa, ya), batch_size=8, shuffle=True)
model = ResNet8(classes=2)
swa_model = copy.deepcopy(model).requires_grad_(False)
optimizer = optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
for epoch in range(3):
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        for average, new in zip(swa_model.parameters(), model.parameters()):
            average.add_((new - average) / (epoch + 1))
swa_model.eval()
with torch.no_grad():
    accuracy = (swa_model(xb).argmax(1) == yb).float().mean()  # <- here
print("swa accuracy", accuracy.item())
