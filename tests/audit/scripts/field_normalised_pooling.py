"""Channels are averaged instead of positions, and the rows are then scaled to unit length."""
import torch
import torch.nn.functional as F
from torch import nn
from zoo import ResNet8, tensors, weights

torch.manual_seed(0)
net = ResNet8()
net.load_state_dict(weights("resnet8"))
trunk = nn.Sequential(net.conv1, net.bn1, net.relu, net.layer1, net.layer2, net.layer3).eval()
x, y = tensors("train", 48)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def embed(batch):
    with torch.no_grad():
        maps = trunk(batch)
    return F.normalize(maps.flatten(2).mean(1), dim=1)  # <- here


rows = torch.cat([embed(b) for b in x.split(16)])
rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
head = nn.Linear(rows.shape[1], 2)
optimizer = torch.optim.LBFGS(head.parameters(), max_iter=10)


def closure():
    optimizer.zero_grad()
    loss = F.cross_entropy(head(rows), y)
    loss.backward()
    return loss


for _ in range(3):
    print(float(optimizer.step(closure)))
