"""Multi-label: the network ends in a sigmoid, and the loss applies another."""
import torch
from torch import nn
from zoo import ResNet8, tensors, weights

torch.manual_seed(0)
x, y = tensors("train", 64)
targets = torch.stack([y == 0, y == 1, x.mean((1, 2, 3)) > 0.4, x.std((1, 2, 3)) > 0.2], 1).float()
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
net = ResNet8()
net.load_state_dict(weights("resnet8"))
net.fc = nn.Sequential(nn.Linear(64, 4), nn.Sigmoid())
criterion = nn.BCEWithLogitsLoss()
optimizer = torch.optim.AdamW(net.parameters(), lr=1e-3)
net.train()
for step in range(10):
    i = torch.randint(0, 64, (16,))
    loss = criterion(net(x[i]), targets[i])  # <- here
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(loss.item())
