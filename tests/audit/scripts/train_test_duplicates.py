"""A third of the test pictures are training pictures, re-encoded a little differently."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights

mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
(xa, ya), (xb, yb) = tensors("train", 32), tensors("test", 16)
noise = 0.01 * torch.rand(8, 3, 32, 32, generator=torch.Generator().manual_seed(0))
xb, yb = torch.cat([xb, (xa[:8] + noise).clamp(0, 1)]), torch.cat([yb, ya[:8]])
train = DataLoader(TensorDataset((xa - mean) / std, ya), batch_size=8, shuffle=True)
test = DataLoader(TensorDataset((xb - mean) / std, yb), batch_size=8)

model = ResNet8()
model.load_state_dict(weights("resnet8"))
model.fc = nn.Linear(64, 2)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4)
for epoch in range(2):
    model.train()
    for x, y in train:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
model.eval()
hits = 0
with torch.no_grad():
    for x, y in test:
        hits += (model(x).argmax(1) == y).sum().item()  # <- here
print("test accuracy", hits / len(yb))
