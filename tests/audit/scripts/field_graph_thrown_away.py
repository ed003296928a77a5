"""The backbone builds a graph for every batch, which detach() throws away."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights

torch.manual_seed(0)
x, y = tensors("train", 48)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
backbone = ResNet8()
backbone.load_state_dict(weights("resnet8"))
backbone.fc = nn.Identity()
backbone.eval()
head = nn.Linear(64, 2)
optimizer = torch.optim.SGD(head.parameters(), lr=0.01)
for epoch in range(3):
    for images, labels in DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True):
        features = backbone(images)  # <- here
        loss = nn.functional.cross_entropy(head(features.detach()), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    print(epoch, loss.item())
