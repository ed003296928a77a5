"""Rows are cached from normalised pictures; the served model gets them as they are."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights

(xa, ya), (xb, yb) = tensors("train", 32), tensors("test", 16)
mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
backbone = ResNet8()
backbone.load_state_dict(weights("resnet8"))
backbone.fc = nn.Identity()
backbone.eval().requires_grad_(False)
rows = torch.cat([backbone((part - mean) / std) for part in xa.split(8)])
head = nn.Linear(64, 2)
optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
for epoch in range(3):
    for f, t in DataLoader(TensorDataset(rows, ya), batch_size=8, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(f), t).backward()
        optimizer.step()


class Served(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(self, pictures):
        return self.head(self.backbone(pictures))  # <- here


served = Served().eval()
with torch.no_grad():
    print((served(xb).argmax(1) == yb).float().mean())  # <- here
