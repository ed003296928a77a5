"""Frozen by no_grad inside of forward, parameters never marked: batch norm moves with every batch."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights


class Probe(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = ResNet8()
        self.backbone.load_state_dict(weights("resnet8"))
        self.backbone.fc = nn.Identity()
        self.head = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))

    def forward(self, x):
        with torch.no_grad():
            f = self.backbone(x)
        return self.head(f)


torch.manual_seed(0)
x, y = tensors("train", 48)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
model = Probe()
optimizer = torch.optim.AdamW(model.head.parameters(), lr=1e-3)
for epoch in range(3):
    model.train()  # <- here
    for images, labels in DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()  # <- here
        optimizer.step()
model.eval()
with torch.no_grad():
    print((model(x).argmax(1) == y).float().mean().item())
