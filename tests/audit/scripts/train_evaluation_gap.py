"""Batch norms that hardly follow: fine in training mode, and lost in evaluation mode."""
import torch
from torch import nn
from zoo import ResNet8, tensors

x, y = tensors("train", 32)
x = x * 255
model = ResNet8(classes=2)
for module in model.modules():
    if isinstance(module, nn.BatchNorm2d):
        module.momentum = 1e-4
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for epoch in range(6):
    model.train()
    for part in torch.randperm(32).split(16):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[part]), y[part])
        loss.backward()
        optimizer.step()
model.eval()
with torch.no_grad():
    print("training accuracy", (model(x).argmax(1) == y).float().mean().item())  # <- here
