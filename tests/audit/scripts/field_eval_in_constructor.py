"""Two towers, one frozen and put in evaluation mode in its constructor; the loop calls train() on all."""
import torch
import torch.nn.functional as F
from torch import nn
from zoo import ResNet8, tensors, weights


class Frozen(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = ResNet8(dropout=0.2)
        self.net.load_state_dict(weights("resnet8"))
        self.net.fc = nn.Identity()
        for p in self.parameters():
            p.requires_grad = False
        self.eval()

    def forward(self, x):
        return self.net(x)


class Contrast(nn.Module):
    def __init__(self):
        super().__init__()
        self.image = Frozen()
        self.map_image = nn.Linear(64, 16)
        self.other = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 32), nn.ReLU(), nn.Linear(32, 16))

    def forward(self, a, b):
        return F.normalize(self.map_image(self.image(a)), dim=-1), F.normalize(self.other(b), dim=-1)


torch.manual_seed(0)
x, _ = tensors("train", 48)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
small = F.adaptive_avg_pool2d(x, 8)
towers = Contrast()
opt = torch.optim.Adam([p for p in towers.parameters() if p.requires_grad], lr=1e-3)
towers.train()  # <- here
for step in range(9):
    i = torch.randint(0, 48, (16,))
    a, b = towers(x[i], small[i])  # <- here
    logits = a @ b.T / 0.07
    loss = (F.cross_entropy(logits, torch.arange(16)) + F.cross_entropy(logits.T, torch.arange(16))) / 2
    opt.zero_grad()
    loss.backward()
    opt.step()
print(loss.item())
