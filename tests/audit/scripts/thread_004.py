"""A pre-trained encoder, frozen; should its dropout be on while the decoder learns?"""
import torch
from sklearn.datasets import load_digits
from torch import nn

X, y = load_digits(return_X_y=True)
X, y = torch.tensor(X[:512] / 16).float(), torch.tensor(y[:512])


def make_encoder():
    return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Dropout(0.5), nn.Linear(64, 32), nn.ReLU())


torch.manual_seed(0)
checkpoint = make_encoder().state_dict()


class MyModel(nn.Module):
    def __init__(self, freeze_submodule):
        super().__init__()
        self.submodule = make_encoder()
        self.submodule.load_state_dict(checkpoint)
        self.decoder = nn.Linear(32, 10)
        if freeze_submodule:
            for param in self.submodule.parameters():
                param.requires_grad = False

    def forward(self, x):
        return self.decoder(self.submodule(x))  # <- here


model = MyModel(freeze_submodule=True)
optimizer = torch.optim.Adam(model.decoder.parameters(), lr=1e-2)
model.train()  # <- mode
for epoch in range(3):
    for part in torch.randperm(512).split(64):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X[part]), y[part])
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())
