"""The trunk is frozen, and yet every forward pass records a graph through it."""
import torch
from torch import nn, optim
from zoo import ResNet8, tensors, weights

x, y = tensors("train", 32)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
x.requires_grad_(True)  # left over from a saliency map

model = ResNet8()
model.load_state_dict(weights("resnet8"))
for p in model.parameters():
    p.requires_grad = False
model.fc = nn.Linear(64, 2)
model.eval()

criterion = nn.CrossEntropyLoss()
optimizer = optim.SGD(model.fc.parameters(), lr=0.01)
for step in range(8):
    batch = slice(step * 4, step * 4 + 4)
    optimizer.zero_grad()
    loss = criterion(model(x[batch]), y[batch])  # <- here
    loss.backward()  # <- here
    optimizer.step()
print(loss.item())
