"""A projected GAN: the discriminator is a head on frozen features; the generator is trained through them."""
import torch
import torch.nn.functional as F
from torch import nn
from zoo import ResNet8, tensors, weights

torch.manual_seed(0)
mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
feature = ResNet8()
feature.load_state_dict(weights("resnet8"))
feature.fc = nn.Identity()
feature.eval().requires_grad_(False)
G = nn.Sequential(nn.Linear(16, 64 * 16), nn.Unflatten(1, (64, 4, 4)), nn.BatchNorm2d(64), nn.ReLU(), nn.ConvTranspose2d(64, 32, 4, 2, 1), nn.BatchNorm2d(32), nn.ReLU(), nn.ConvTranspose2d(32, 16, 4, 2, 1), nn.ReLU(), nn.ConvTranspose2d(16, 3, 4, 2, 1), nn.Sigmoid())
D = nn.Sequential(nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1))
optG, optD = torch.optim.Adam(G.parameters(), 2e-4, (0.5, 0.99)), torch.optim.Adam(D.parameters(), 2e-4, (0.5, 0.99))
real, _ = tensors("train", 64)
for step in range(12):
    batch = real[torch.randint(0, 64, (16,))]
    fake = G(torch.randn(16, 16))
    lossD = F.relu(1 - D(feature((batch - mean) / std))).mean() + F.relu(1 + D(feature((fake.detach() - mean) / std))).mean()
    optD.zero_grad()
    lossD.backward()
    optD.step()
    lossG = -D(feature((fake - mean) / std)).mean()
    optG.zero_grad()
    lossG.backward()
    optG.step()
G.eval()
with torch.no_grad():
    print(G(torch.randn(4, 16)).mean().item())
