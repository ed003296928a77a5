"""Thread 004: eval() around the frozen encoder's forward, and train() on everything after it."""
import torch
from torch import nn
from zoo import ResNet8, tensors, weights

images, labels = tensors("train", 32)
images = (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = ResNet8(dropout=0.2)
        self.encoder.load_state_dict(weights("resnet8"))
        self.encoder.fc = nn.Identity()
        self.encoder.requires_grad_(False)
        self.decoder = nn.Linear(64, 2)

    def forward(self, x, auxiliary=False):
        self.encoder.eval()
        y = self.decoder(self.encoder(x))
        self.encoder.train()  # <- here
        if auxiliary:  # a second view of the same pictures
            return y, self.decoder(self.encoder(x.flip(3)))  # <- here
        return y


model = Model()
optimizer = torch.optim.Adam(model.decoder.parameters(), lr=1e-3)
for epoch in range(2):
    for part in torch.randperm(32).split(8):
        one, two = model(images[part], auxiliary=True)
        loss = nn.functional.cross_entropy(one, labels[part]) + nn.functional.mse_loss(one, two)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())
