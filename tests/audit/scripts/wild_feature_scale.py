"""A linear head on features whose scales differ by a factor of a thousand."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights

x, y = tensors("train", 64)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
backbone = ResNet8()
backbone.load_state_dict(weights("resnet8"))
backbone.fc = nn.Identity()
backbone.eval()
with torch.no_grad():
    features = torch.cat([backbone(part) for part in x.split(16)])
    # second-order statistics beside the means, as some texture descriptors have them
    features = torch.cat([features, (features[:, :32] * 60) ** 2], 1)
head = nn.Linear(96, 2)
optimizer = torch.optim.SGD(head.parameters(), lr=0.01)
for epoch in range(3):
    for f, t in DataLoader(TensorDataset(features, y), batch_size=16, shuffle=True):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(head(f), t)  # <- here
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())
