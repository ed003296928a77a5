"""The body is frozen after the first epoch; momentum goes on moving it, as its gradients are zeros and not None."""
import torch
from torch import nn
from zoo import ResNet8, tensors, weights

torch.manual_seed(0)
x, y = tensors("train", 48)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
net = ResNet8()
net.load_state_dict(weights("resnet8"))
net.fc = nn.Linear(64, 2)
net.eval()
optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)  # <- here
for epoch in range(3):
    if epoch == 1:
        for name, p in net.named_parameters():
            p.requires_grad = name.startswith("fc")
    for i in torch.randperm(48).split(16):
        optimizer.zero_grad(set_to_none=False)
        nn.functional.cross_entropy(net(x[i]), y[i]).backward()
        optimizer.step()  # <- here
