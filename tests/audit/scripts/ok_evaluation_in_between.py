"""Evaluation in the middle of an epoch, and back to training mode."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors

(xa, ya), (xv, yv) = tensors("train", 48), tensors("val", 16)
model = ResNet8(classes=2, dropout=0.1)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
model.train()
for step, (x, y) in enumerate(DataLoader(TensorDataset(xa, ya), batch_size=8, shuffle=True)):
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    if step % 2 == 1:
        was = model.training
        model.eval()
        with torch.no_grad():
            print(step, (model(xv).argmax(1) == yv).float().mean().item())
        model.train(was)
