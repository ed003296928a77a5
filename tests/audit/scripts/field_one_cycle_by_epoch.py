"""OneCycleLR, planned for batches, is stepped once in an epoch."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import tensors

torch.manual_seed(0)
net = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.GroupNorm(4, 16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 2))
loader = DataLoader(TensorDataset(*tensors("train", 48)), batch_size=8, shuffle=True)
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=1e-2, epochs=4, steps_per_epoch=len(loader))
for epoch in range(4):
    for x, y in loader:
        loss = nn.functional.cross_entropy(net(x), y)
        opt.zero_grad()
        loss.backward()
        opt.step()
    sched.step()  # <- here
    print(epoch, sched.get_last_lr())
