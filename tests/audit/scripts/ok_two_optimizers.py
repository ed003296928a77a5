"""One optimizer for the trunk, another for the head, stepped together."""
import torch
from torch import nn
from zoo import ResNet8, tensors, weights

x, y = tensors("train", 32)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
trunk = ResNet8()
trunk.load_state_dict(weights("resnet8"))
trunk.fc = nn.Identity()
head = nn.Linear(64, 2)
slow, fast = torch.optim.SGD(trunk.parameters(), lr=1e-4), torch.optim.Adam(head.parameters(), lr=1e-3)
for part in torch.randperm(32).split(16):
    trunk.train(), head.train()
    loss = nn.functional.cross_entropy(head(trunk(x[part])), y[part])
    slow.zero_grad(), fast.zero_grad()
    loss.backward()
    slow.step(), fast.step()
print(loss.item())
