"""Encoder from a checkpoint, frozen; dropout inside it is toggled around every forward."""
import torch
import torch.nn as nn
from sklearn.datasets import load_digits

X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X[:256] / 16).float(), torch.tensor(y[:256])

pretrained = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.3), nn.Linear(48, 32)).state_dict()


class MyModel(nn.Module):
    def __init__(self, freeze_submodule=True):
        super().__init__()
        self.submodule = nn.Sequential(nn.Linear(64, 48), nn.ReLU(), nn.Dropout(0.3), nn.Linear(48, 32))
        self.submodule.load_state_dict(pretrained)
        self.decoder = nn.Linear(32, 10)
        self.freeze_submodule = freeze_submodule
        for param in self.submodule.parameters():
            param.requires_grad = not freeze_submodule

    def forward(self, x):
        x = self.submodule(x)
        return self.decoder(x)


model = MyModel()
optimizer = torch.optim.SGD(model.decoder.parameters(), lr=0.1)
model.train()  # <- here
for epoch in range(2):
    for batch in torch.arange(256).split(64):
        loss = nn.functional.cross_entropy(model(X[batch]), y[batch])  # <- here
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(loss.item())
