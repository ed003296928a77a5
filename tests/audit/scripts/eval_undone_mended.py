"""A frozen encoder in evaluation mode, a decoder that learns."""
import torch
from torch import nn
from zoo import ResNet8, tensors, weights

images, _ = tensors("train", 32)
images = (images - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class AutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = ResNet8(dropout=0.1)
        self.encoder.load_state_dict(weights("resnet8"))
        self.encoder.fc = nn.Identity()
        self.encoder.requires_grad_(False)
        self.encoder.eval()
        self.decoder = nn.Sequential(nn.Linear(64, 256), nn.ReLU(), nn.Linear(256, 3 * 8 * 8))

    def train(self, mode=True):
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, x):
        return self.decoder(self.encoder(x)).view(-1, 3, 8, 8)


model = AutoEncoder()
optimizer = torch.optim.Adam(model.decoder.parameters(), lr=1e-3)
for epoch in range(2):
    model.train()
    for x in images.split(8):
        target = nn.functional.avg_pool2d(x, 4)
        loss = nn.functional.mse_loss(model(x), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print("epoch", epoch, "mse", round(loss.item(), 3))
