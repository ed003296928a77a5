"""Two learning rates; the body was frozen before, so that its rate does nothing, and a schedule was never stepped."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights

torch.manual_seed(0)
x, y = tensors("train", 48)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
net = ResNet8()
net.load_state_dict(weights("resnet8"))
for name, p in net.named_parameters():
    if "layer3" not in name and "fc" not in name:
        p.requires_grad = False
net.fc = nn.Linear(64, 2)
early = [p for n, p in net.named_parameters() if n.startswith(("conv1", "layer1", "layer2"))]
late = [p for n, p in net.named_parameters() if n.startswith(("layer3", "fc"))]
opt = torch.optim.SGD([{"params": early, "lr": 1e-4}, {"params": late, "lr": 1e-2}], momentum=0.9)  # <- here
warm = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 3)  # <- here
for epoch in range(3):
    net.eval()
    for a, b in DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True):
        opt.zero_grad()
        nn.functional.cross_entropy(net(a), b).backward()
        opt.step()
