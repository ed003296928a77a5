"""autocast to bfloat16 with a frozen trunk in evaluation mode."""
import torch
from torch import nn
from zoo import ResNet8, tensors, weights

x, y = tensors("train", 32)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
model = ResNet8()
model.load_state_dict(weights("resnet8"))
model.requires_grad_(False)
model.fc = nn.Linear(64, 2)
model.eval()
optimizer = torch.optim.SGD(model.fc.parameters(), lr=1e-2)
scaler = torch.amp.GradScaler("cpu", enabled=False)
for part in torch.randperm(32).split(8):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = nn.functional.cross_entropy(model(x[part]), y[part])
    optimizer.zero_grad()
    scaler.scale(loss).backward()
    scaler.step(optimizer)
    scaler.update()
print(loss.item())
