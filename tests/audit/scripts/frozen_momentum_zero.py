"""The pre-trained body stays as it is: no gradients, and its batch norms do not move."""
import torch
from torch import nn, optim
from zoo import ResNet8, tensors, weights

x, y = tensors("train", 32)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

model = ResNet8()
model.load_state_dict(weights("resnet8"))
model.requires_grad_(False)
model.fc = nn.Linear(64, 2)
for layer in model.modules():
    if isinstance(layer, nn.BatchNorm2d):
        layer.momentum = 0.0  # keeps running_mean and running_var where they are

optimizer = optim.SGD(model.fc.parameters(), lr=0.05, momentum=0.9)
for epoch in range(3):
    model.train()
    for part in torch.randperm(32).split(8):
        loss = nn.functional.cross_entropy(model(x[part]), y[part])  # <- here
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())
