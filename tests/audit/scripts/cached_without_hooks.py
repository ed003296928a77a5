"""Rows are cached first; then a hook is put on the backbone, with which the model is served."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights

mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
(xa, ya), (xb, yb) = tensors("train", 32), tensors("test", 16)
xa, xb = (xa - mean) / std, (xb - mean) / std
backbone = ResNet8()
backbone.load_state_dict(weights("resnet8"))
backbone.fc = nn.Identity()
backbone.eval().requires_grad_(False)


def clip(module, args, output):
    return output.clamp(max=0.5)


rows = torch.cat([backbone(part) for part in xa.split(8)])
head = nn.Linear(64, 2)
optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
for epoch in range(3):
    for f, t in DataLoader(TensorDataset(rows, ya), batch_size=8, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(head(f), t).backward()
        optimizer.step()

backbone.layer2.register_forward_hook(clip)
served = nn.Sequential(backbone, head).eval()
with torch.no_grad():
    print("accuracy", (served(xb).argmax(1) == yb).float().mean().item())  # <- here
