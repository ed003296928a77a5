"""A schedule that is meant in epochs is stepped in the inner loop."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import tensors


def main():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Flatten(), nn.Linear(3072, 32), nn.ReLU(), nn.Linear(32, 2))
    loader = DataLoader(TensorDataset(*tensors("train", 96)), batch_size=4, shuffle=True)
    opt = torch.optim.SGD(net.parameters(), lr=0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.StepLR(opt, step_size=7, gamma=0.1)
    for epoch in range(2):
        for x, y in loader:
            opt.zero_grad()
            nn.functional.cross_entropy(net(x), y).backward()
            opt.step()
            scheduler.step()  # <- here


main()
