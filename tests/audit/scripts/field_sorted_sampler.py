"""A sampler of its own yields one class after the other, under batch norm."""
import torch
from torch import nn
from torch.utils.data import DataLoader, Sampler, TensorDataset
from zoo import ResNet8, tensors, weights


class ByClass(Sampler):
    def __init__(self, labels):
        self.order = sorted(range(len(labels)), key=lambda i: int(labels[i]))

    def __iter__(self):
        return iter(self.order)

    def __len__(self):
        return len(self.order)


torch.manual_seed(0)
x, y = tensors("train", 64)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
net = ResNet8()
net.load_state_dict(weights("resnet8"))
net.fc = nn.Linear(64, 2)
opt = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
crit = nn.CrossEntropyLoss()
for epoch in range(3):
    net.train()
    total = 0.0
    for step, data in enumerate(DataLoader(TensorDataset(x, y), batch_size=16, sampler=ByClass(y))):
        inputs, labels = data
        opt.zero_grad()
        loss = crit(net(inputs), labels)  # <- here
        loss.backward()
        opt.step()
        total += loss.item()
    print(epoch, total)
