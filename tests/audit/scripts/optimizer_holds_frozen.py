"""All parameters go to the optimizer, though most are frozen."""
import torch
from torch import nn, optim
from zoo import ResNet8, tensors, weights

imagenet = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
x, y = tensors("train", 32)
x = (x - imagenet[0]) / imagenet[1]

model = ResNet8()
model.load_state_dict(weights("resnet8"))
model.requires_grad_(False)
model.fc = nn.Linear(64, 2)
model.eval()

optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)  # <- here
for step in range(8):
    i = slice(4 * step, 4 * step + 4)
    loss = nn.functional.cross_entropy(model(x[i]), y[i])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print("final loss", loss.item())
