"""Embeddings once and for all, then a classifier on them."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights


def load_data(split):
    x, y = tensors(split, 32)
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return DataLoader(TensorDataset(x, y), batch_size=8)


def load_backbone():
    backbone = ResNet8()
    backbone.load_state_dict(weights("resnet8"))
    backbone.fc = nn.Identity()
    return backbone.eval()


train_dataloader, test_dataloader = load_data("train"), load_data("test")
backbone = load_backbone()

train_embeddings, train_labels = [], []
test_embeddings, test_labels = [], []
with torch.no_grad():
    for X, y in train_dataloader:
        train_embeddings.append(backbone(X).detach())
        train_labels.append(y)
    for X, y in test_dataloader:
        test_embeddings.append(backbone(X).detach())
        test_labels.append(y)

train_dataset = TensorDataset(torch.cat(train_embeddings), torch.cat(train_labels))
mlp_head = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
opt = torch.optim.Adam(mlp_head.parameters(), lr=1e-3)
for epoch in range(3):
    for e, y in DataLoader(train_dataset, batch_size=16, shuffle=True):
        opt.zero_grad()
        nn.functional.cross_entropy(mlp_head(e), y).backward()
        opt.step()
with torch.no_grad():
    accuracy = (mlp_head.eval()(torch.cat(test_embeddings)).argmax(1) == torch.cat(test_labels)).float().mean()
print(f"test accuracy {accuracy:.2f}")
