"""A wrapper pools its tokens over the features, inside of its own forward."""
import torch
from torch import nn
from zoo import tensors


class Encoder(nn.Module):
    def __init__(self, d=24):
        super().__init__()
        self.patch, self.norm = nn.Conv2d(3, d, 4, 4), nn.LayerNorm(d)
        self.mlp = nn.ModuleList([nn.Sequential(nn.LayerNorm(d), nn.Linear(d, 48), nn.GELU(), nn.Linear(48, d)) for _ in range(2)])

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        for block in self.mlp:
            x = x + block(x)
        return self.norm(x)


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = Encoder()
        self.head = nn.Linear(64, 2)

    def forward(self, x):
        tokens = self.encoder(x)
        pooled = tokens.mean(dim=-1)  # <- here
        return self.head(pooled)


torch.manual_seed(0)
x, y = tensors("train", 32)
model = Classifier()
model.encoder.requires_grad_(False)
opt = torch.optim.Adam(model.head.parameters(), lr=1e-3)
for i in torch.arange(32).split(8) * 3:
    opt.zero_grad()
    nn.functional.cross_entropy(model((x[i] - 0.5) / 0.5), y[i]).backward()
    opt.step()
