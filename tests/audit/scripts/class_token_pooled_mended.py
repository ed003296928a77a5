"""The tokens of a ViT are averaged, the class token among them."""
import timm
import torch
from torch import nn
from zoo import tensors, weights

vit = timm.create_model("test_vit")
vit.load_state_dict(weights("test_vit"))
vit.reset_classifier(0)
vit.eval()
x, y = tensors("train", 12, size=160)
x = (x - 0.5) / 0.5
with torch.no_grad():
    rows = torch.cat([vit.forward_features(part)[:, vit.num_prefix_tokens:].mean(1) for part in x.split(4)])
head = nn.Linear(rows.shape[1], 2)
optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
for _ in range(5):
    loss = nn.functional.cross_entropy(head(rows), y)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(loss.item())
