"""A logistic regression by LBFGS: one step evaluates the loss many times."""
import torch
from sklearn.datasets import load_digits
from torch import nn

X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X[:600] / 16).double(), torch.tensor(y[:600])
model = nn.Linear(64, 10).double()
optimizer = torch.optim.LBFGS(model.parameters(), lr=1, max_iter=15, line_search_fn="strong_wolfe")


def closure():
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(X), y) + 1e-3 * sum(p.square().sum() for p in model.parameters())
    loss.backward()
    return loss


for _ in range(3):
    print(optimizer.step(closure).item())
