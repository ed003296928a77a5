"""Pictures of 32 px in a network for 160 px."""
import timm
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import tensors, weights

model = timm.create_model("test_resnet")
model.load_state_dict(weights("test_resnet"))
model.reset_classifier(2)
for name, p in model.named_parameters():
    p.requires_grad = "fc" in name
model.eval()

x, y = tensors("train", 16, size=160)
mean, std = model.pretrained_cfg["mean"], model.pretrained_cfg["std"]
x = (x - torch.tensor(mean).view(3, 1, 1)) / torch.tensor(std).view(3, 1, 1)
optimizer = torch.optim.Adam(model.fc.parameters(), lr=1e-3)
for a, b in DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True):
    loss = nn.functional.cross_entropy(model(a), b)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(loss.item())
