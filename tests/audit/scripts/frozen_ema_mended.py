"""The teacher is frozen; only the student's head should learn."""
import copy

import torch
from torch import nn
from zoo import ResNet8, tensors, weights

images, labels = tensors("train", 32)
mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
images = (images - mean) / std

encoder = ResNet8()
encoder.load_state_dict(weights("resnet8"))
encoder.fc = nn.Identity()
for p in encoder.parameters():
    p.requires_grad = False
encoder.eval()

other = copy.deepcopy(encoder)
for p in other.parameters():
    p.data.mul_(1.01)
head = nn.Linear(64, 2)
opt = torch.optim.Adam(head.parameters(), lr=1e-3)

for step in range(6):
    x, t = images[step * 4 : step * 4 + 4], labels[step * 4 : step * 4 + 4]
    with torch.no_grad():
        f = encoder(x)
    loss = nn.functional.cross_entropy(head(f), t)
    opt.zero_grad()
    loss.backward()
    opt.step()
print("loss", loss.item())
