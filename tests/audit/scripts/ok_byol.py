"""BYOL: the target network is an average of the online network and gets no gradient."""
import copy

import torch
from torch import nn
from torch.nn.functional import normalize
from zoo import ResNet8, tensors

x, _ = tensors("train", 32)
x = (x - 0.45) / 0.25
online = ResNet8(classes=32)
predictor = nn.Sequential(nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 32))
target = copy.deepcopy(online)
for p in target.parameters():
    p.requires_grad = False
optimizer = torch.optim.SGD([*online.parameters(), *predictor.parameters()], lr=0.03, momentum=0.9)


def views(batch):
    return batch.flip(3) + 0.05 * torch.randn_like(batch), batch.roll(2, 2)


for epoch in range(2):
    for batch in x[torch.randperm(32)].split(16):
        a, b = views(batch)
        with torch.no_grad():
            za, zb = target(a), target(b)
        loss = 4 - 2 * (normalize(predictor(online(a))) * normalize(zb)).sum(1).mean()
        loss = loss - 2 * (normalize(predictor(online(b))) * normalize(za)).sum(1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            for p, q in zip(target.parameters(), online.parameters()):
                p.lerp_(q, 0.01)
    print(epoch, loss.item())
