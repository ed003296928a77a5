"""33 items in batches of 16: the last batch has one, and batch norm takes its statistics from it."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights

torch.manual_seed(0)
x, y = tensors("train", 33)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
net = ResNet8()
net.load_state_dict(weights("resnet8"))
net.fc = nn.Linear(64, 2)
opt = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
net.train()
for epoch in range(2):
    for a, b in DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True):
        opt.zero_grad()
        nn.functional.cross_entropy(net(a), b).backward()  # <- here
        opt.step()
