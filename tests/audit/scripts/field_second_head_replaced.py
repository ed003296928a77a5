"""Two heads on one trunk, one of them made anew after the optimizer, as in a notebook."""

import torch
from sklearn.datasets import load_digits
from torch import nn

torch.manual_seed(0)
digits = load_digits()
x = torch.tensor(digits.data[:300] / 16, dtype=torch.float32)
y = torch.tensor(digits.target[:300])
trunk = nn.Sequential(nn.Linear(64, 32), nn.ReLU())
digit, parity = nn.Linear(32, 8), nn.Linear(32, 1)
params = [*trunk.parameters(), *digit.parameters(), *parity.parameters()]
optimizer = torch.optim.AdamW(params, lr=1e-3)  # <- here
digit = nn.Linear(32, 10)  # ten digits
for epoch in range(2):
    for rows in torch.randperm(300).split(50):
        z = trunk(x[rows])
        loss = nn.functional.cross_entropy(digit(z), y[rows])
        even = (y[rows] % 2).float()
        loss = loss + nn.functional.binary_cross_entropy_with_logits(parity(z)[:, 0], even)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()  # <- here
    print(epoch, loss.item())
