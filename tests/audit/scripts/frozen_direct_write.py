"""Frozen trunk, and a "max norm" that the author meant for the head alone."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights

images, labels = tensors("train", 32)
images = (images - torch.tensor([0.485, 0.456, 0.406])[:, None, None]) / torch.tensor([0.229, 0.224, 0.225])[:, None, None]
loader = DataLoader(TensorDataset(images, labels), batch_size=8, shuffle=True)

trunk = ResNet8()
trunk.load_state_dict(weights("resnet8"))
trunk.fc = nn.Identity()
trunk.requires_grad_(False)
trunk.eval()
head = nn.Linear(64, 2)
model = nn.Sequential(trunk, head)
optimizer = torch.optim.SGD(head.parameters(), lr=0.1)

for x, y in loader:
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.step()
    with torch.no_grad():
        for w in model.parameters():
            if w.dim() > 1:
                w.copy_(torch.renorm(w, 2, 0, 0.5))  # <- here
print("done")
