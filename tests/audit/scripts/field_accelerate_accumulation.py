"""Batches of four, accumulated to sixteen by Accelerate; batch norm sees four."""
import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights

torch.manual_seed(0)
accelerator = Accelerator(cpu=True, gradient_accumulation_steps=4)
x, y = tensors("train", 64)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
net = ResNet8()
net.load_state_dict(weights("resnet8"))
net.fc = nn.Linear(64, 2)
model, optimizer, loader = accelerator.prepare(net, torch.optim.AdamW(net.parameters(), lr=1e-4), DataLoader(TensorDataset(x, y), batch_size=4, shuffle=True))
model.train()
for images, labels in loader:
    with accelerator.accumulate(model):
        loss = nn.functional.cross_entropy(model(images), labels)  # <- here
        accelerator.backward(loss)
        optimizer.step()
        optimizer.zero_grad()
print(loss.item())
