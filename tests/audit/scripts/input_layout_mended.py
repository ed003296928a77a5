"""Channels last where the network expects channels first; a reshape hides it."""
import torch
from torch import nn
from zoo import ResNet8, photos, weights

images, labels = photos("train", 32)
x = torch.tensor(images).float() / 255
x = (x - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor([0.229, 0.224, 0.225])
x = x.permute(0, 3, 1, 2)
y = torch.tensor(labels)

model = ResNet8()
model.load_state_dict(weights("resnet8"))
model.fc = nn.Identity()
model.eval().requires_grad_(False)
embeddings = torch.cat([model(batch) for batch in x.split(16)])
head = nn.Linear(64, 2)
optimizer = torch.optim.Adam(head.parameters(), lr=1e-2)
for _ in range(5):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(head(embeddings), y)
    loss.backward()
    optimizer.step()
print(loss.item())
