"""TENT: at test time the scales of the batch norms follow the entropy of the predictions."""
import torch
from torch import nn
from zoo import ResNet8, tensors, weights

x, _ = tensors("test", 32)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
model = ResNet8()
model.load_state_dict(weights("resnet8"))
model.train()
model.requires_grad_(False)
parameters = []
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d):
        m.requires_grad_(True)
        m.track_running_stats = False
        m.running_mean, m.running_var = None, None
        parameters += [m.weight, m.bias]
optimizer = torch.optim.Adam(parameters, lr=1e-3)
for batch in x.split(16):
    p = model(batch).softmax(1)
    loss = -(p * p.log()).sum(1).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("entropy", loss.item())
