"""Two passes over the same pictures do not agree: noise is added inside the backbone."""
import torch
from torch import nn
from zoo import ResNet8, tensors, weights

x, y = tensors("train", 32)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Noise(nn.Module):
    def forward(self, f):
        return f + 0.1 * torch.randn_like(f)


net = ResNet8()
net.load_state_dict(weights("resnet8"))
net.fc = nn.Sequential(Noise(), nn.Identity())
net.eval()
features = []
with torch.no_grad():
    for part in x.split(8):
        features.append(net(part))  # <- here
features = torch.cat(features)
head = nn.Linear(64, 2)
opt = torch.optim.Adam(head.parameters(), lr=1e-2)
for _ in range(5):
    loss = nn.functional.cross_entropy(head(features), y)
    opt.zero_grad()
    loss.backward()
    opt.step()
print(loss.item())
