"""A frozen ViT, without batch norm and dropout; its mode makes no difference."""
import timm
import torch
from torch import nn
from zoo import tensors, weights

vit = timm.create_model("test_vit")
vit.load_state_dict(weights("test_vit"))
vit.requires_grad_(False)
vit.reset_classifier(2)
optimizer = torch.optim.AdamW(vit.head.parameters(), lr=1e-3)
x, y = tensors("train", 16, size=160)
x = (x - 0.5) / 0.5
vit.train()
for part in torch.randperm(16).split(4):
    loss = nn.functional.cross_entropy(vit(x[part]), y[part])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(loss.item())
