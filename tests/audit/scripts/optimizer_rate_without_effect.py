"""Layer-wise learning rates: a small one for the trunk, a larger one for the head."""
import torch
from torch import nn, optim
from zoo import ResNet8, tensors, weights

x, y = tensors("train", 32)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

model = ResNet8()
model.load_state_dict(weights("resnet8"))
model.fc = nn.Linear(64, 2)
model.requires_grad_(False)
model.fc.requires_grad_(True)
trunk = [p for n, p in model.named_parameters() if not n.startswith("fc")]
optimizer = optim.Adam([{"params": trunk, "lr": 1e-5}, {"params": model.fc.parameters(), "lr": 1e-3}])  # <- here

model.eval()
for step in range(8):
    part = torch.randperm(32)[:8]
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x[part]), y[part]).backward()
    optimizer.step()
print("done")
