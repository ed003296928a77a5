"""An exponential moving average whose batch norms were reset before the evaluation."""
import copy

import torch
from torch import nn
from zoo import ResNet8, tensors

(xa, ya), (xb, yb) = tensors("train", 32), tensors("test", 16)
model = ResNet8(classes=2)
ema = copy.deepcopy(model).requires_grad_(False)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
model.train()
for epoch in range(2):
    for part in torch.randperm(32).split(8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(xa[part]), ya[part]).backward()
        optimizer.step()
        with torch.no_grad():
            for p, q in zip(ema.parameters(), model.parameters()):
                p.lerp_(q, 0.1)
            for p, q in zip(ema.buffers(), model.buffers()):
                p.copy_(q)
ema.eval()
with torch.no_grad():
    print((ema(xb).argmax(1) == yb).float().mean())
