"""Four small batches make one large step; the batch norms do not know."""
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights

x, y = tensors("train", 48)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
model = ResNet8()
model.load_state_dict(weights("resnet8"))
model.fc = nn.Linear(64, 2)
optimizer = optim.SGD(model.parameters(), lr=1e-2)
accumulate = 6
model.train()
for m in model.modules():
    if isinstance(m, nn.BatchNorm2d):
        m.eval()
for step, (a, b) in enumerate(DataLoader(TensorDataset(x, y), batch_size=2, shuffle=True)):
    loss = nn.functional.cross_entropy(model(a), b) / accumulate
    loss.backward()
    if (step + 1) % accumulate == 0:
        optimizer.step()
        optimizer.zero_grad()
print(loss.item())
