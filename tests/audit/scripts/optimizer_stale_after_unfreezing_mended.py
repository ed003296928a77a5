"""Stage 1: the head. Stage 2: unfreeze the last block too."""
import torch
from torch import nn, optim
from zoo import ResNet8, tensors, weights

x, y = tensors("train", 32)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

model = ResNet8()
model.load_state_dict(weights("resnet8"))
model.requires_grad_(False)
model.fc = nn.Linear(64, 2)
model.eval()

optimizer = optim.Adam(filter(lambda p: p.requires_grad, model.parameters()), lr=1e-3)


def train_one_epoch():
    for part in torch.randperm(32).split(8):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x[part]), y[part])
        loss.backward()
        optimizer.step()
    return loss.item()


print("stage 1", train_one_epoch())
for p in model.layer3.parameters():
    p.requires_grad = True
optimizer.add_param_group({"params": model.layer3.parameters(), "lr": 1e-4})
print("stage 2", train_one_epoch(), train_one_epoch())
