"""A mixer over tokens, and an autoencoder with a perceptual loss whose frozen network is hidden in a list."""
import torch
import torch.nn.functional as F
from torch import nn
from zoo import ResNet8, tensors, weights


class Mixer(nn.Module):
    def __init__(self, tokens=16, d=32):
        super().__init__()
        self.patch = nn.Conv2d(3, d, 8, 8)
        self.tokens = nn.Sequential(nn.Linear(tokens, 32), nn.GELU(), nn.Linear(32, tokens))
        self.features = nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 64), nn.GELU(), nn.Linear(64, d))
        self.back = nn.Sequential(nn.Linear(d, 192), nn.Sigmoid())

    def forward(self, x):
        x = self.patch(x).flatten(2)
        x = (x + self.tokens(x)).mT
        x = self.back(x + self.features(x))
        return F.fold(x.mT, 32, 8, stride=8)


class Perceptual(nn.Module):
    def __init__(self):
        super().__init__()
        net = ResNet8()
        net.load_state_dict(weights("resnet8"))
        self.hidden = [nn.Sequential(net.conv1, net.bn1, net.relu, net.layer1).eval().requires_grad_(False)]
        self.register_buffer("mean", torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1))
        self.register_buffer("std", torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1))

    def forward(self, a, b):
        f = self.hidden[0]
        return F.mse_loss(f((a - self.mean) / self.std), f((b - self.mean) / self.std))


torch.manual_seed(0)
x, _ = tensors("train", 48)
net, perceptual = Mixer(), Perceptual()
opt = torch.optim.AdamW(net.parameters(), lr=1e-3)
for step in range(9):
    batch = x[torch.randint(0, 48, (16,))]
    made = net(batch)
    loss = F.l1_loss(made, batch) + 0.1 * perceptual(made, batch)
    opt.zero_grad(set_to_none=True)
    loss.backward()
    opt.step()
