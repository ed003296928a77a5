"""Pictures read with an array library; the network saw numbers between 0 and 1 in pre-training."""
import torch
from torch import nn
from zoo import ResNet8, photos, weights

images, labels = photos("train", 32)
x = torch.from_numpy(images).permute(0, 3, 1, 2).float()
y = torch.from_numpy(labels)

backbone = ResNet8()
backbone.load_state_dict(weights("resnet8"))
backbone.fc = nn.Identity()
backbone.eval()
with torch.no_grad():
    features = torch.cat([backbone(part) for part in x.split(8)])  # <- here
features = nn.functional.normalize(features)
head = nn.Linear(64, 2)
optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
for epoch in range(5):
    loss = nn.functional.cross_entropy(head(features), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("loss", loss.item())
