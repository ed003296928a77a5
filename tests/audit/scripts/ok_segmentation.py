"""A frozen encoder that stays in evaluation mode, a decoder for every pixel, compiled."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights


class Segmenter(nn.Module):
    def __init__(self):
        super().__init__()
        net = ResNet8()
        net.load_state_dict(weights("resnet8"))
        self.encoder = nn.Sequential(net.conv1, net.bn1, net.relu, net.layer1, net.layer2, net.layer3)
        self.encoder.requires_grad_(False)
        self.decoder = nn.Sequential(
            nn.Conv2d(64, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.Dropout2d(0.1),
            nn.Upsample(scale_factor=2), nn.Conv2d(32, 16, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.Conv2d(16, 2, 1),
        )

    def train(self, mode=True):
        super().train(mode)
        self.encoder.eval()
        return self

    def forward(self, x):
        with torch.no_grad():
            maps = self.encoder(x)
        return self.decoder(maps)


torch.manual_seed(0)
x, _ = tensors("train", 32)
masks = (x.mean(1) > x.mean((1, 2, 3)).view(-1, 1, 1)).long()
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
net = Segmenter()
model = torch.compile(net, backend="eager")
optimizer = torch.optim.Adam(net.decoder.parameters(), lr=1e-3)
criterion = nn.CrossEntropyLoss(ignore_index=255)
for epoch in range(3):
    net.train()
    for images, target in DataLoader(TensorDataset(x, masks), batch_size=8, shuffle=True):
        optimizer.zero_grad()
        loss = criterion(model(images), target)
        loss.backward()
        optimizer.step()
    net.eval()
    with torch.no_grad():
        print(epoch, (net(x[:8]).argmax(1) == masks[:8]).float().mean().item())
