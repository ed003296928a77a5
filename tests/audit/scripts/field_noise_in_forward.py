"""F.dropout in a feature extractor, without the flag that tells the mode."""
import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import nn
from zoo import tensors


class Features(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 16, 3, 2, 1), nn.Conv2d(16, 32, 3, 2, 1)

    def forward(self, x):
        x = F.dropout(F.relu(self.a(x)), 0.2)
        return F.relu(self.b(x)).mean((2, 3))


torch.manual_seed(0)
net = Features().eval()
x, y = tensors("train", 64)
with torch.no_grad():
    rows = np.concatenate([net(b).numpy() for b in x.split(16)])  # <- here
rows = (rows - rows.mean(0)) / (rows.std(0) + 1e-6)
print(LogisticRegression().fit(rows[:48], y[:48].numpy()).score(rows[48:], y[48:].numpy()))
