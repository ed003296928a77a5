"""Frames of the same film: random_split puts neighbours on both sides."""
import torch
from torch import nn
from torch.utils.data import DataLoader, Subset, TensorDataset, random_split
from zoo import ResNet8, tensors, weights

generator = torch.Generator().manual_seed(0)
scenes, labels = tensors("train", 12)
frames = scenes.repeat_interleave(4, 0) + 0.01 * torch.randn(48, 3, 32, 32, generator=generator)
frames = (frames - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
films = TensorDataset(frames, labels.repeat_interleave(4))
train, val = random_split(films, [36, 12], generator=generator)

model = ResNet8()
model.load_state_dict(weights("resnet8"))
model.requires_grad_(False)
model.fc = nn.Linear(64, 2)
model.eval()
optimizer = torch.optim.Adam(model.fc.parameters(), lr=1e-3)
for epoch in range(2):
    for x, y in DataLoader(train, batch_size=12, shuffle=True):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    with torch.no_grad():
        right = sum((model(x).argmax(1) == y).sum().item() for x, y in DataLoader(val, batch_size=12))  # <- here
    print(epoch, right / 12)
