"""Five ways to compute embeddings; why does eval() cost so much accuracy?"""
import contextlib

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, cifar10, weights


def load_data():
    # numbers between 0 and 255, as the decoder returns them
    sets = []
    for split in ("train", "test"):
        images, labels = cifar10(split, 64)
        sets.append(TensorDataset(torch.tensor(images).permute(0, 3, 1, 2).float(), torch.tensor(labels)))
    return DataLoader(sets[0], batch_size=16, shuffle=True), DataLoader(sets[1], batch_size=16)


def load_backbone():
    backbone = ResNet8()
    backbone.load_state_dict(weights("resnet8"))
    backbone.fc = nn.Identity()
    return backbone


def embed(backbone, dataloader, context):
    embeddings, labels = [], []
    with context():
        for X, y in dataloader:
            embeddings.append(backbone(X).detach())  # <- here
            labels.append(y)
    return torch.cat(embeddings, dim=0), torch.cat(labels, dim=0)


def train_mlp(head, train, test):
    optimizer = torch.optim.Adam(head.parameters(), lr=1e-3)
    for epoch in range(3):
        for e, y in train:
            optimizer.zero_grad()
            nn.functional.cross_entropy(head(e.clone()), y).backward()
            optimizer.step()
    head.eval()
    with torch.no_grad():
        return sum((head(e).argmax(1) == y).sum().item() for e, y in test) / len(test.dataset)


for name, evaluation, context in [
    ("no_grad", False, torch.no_grad),
    ("inference", False, torch.inference_mode),
    ("eval", True, contextlib.nullcontext),
    ("no_grad + eval", True, torch.no_grad),
    ("inference + eval", True, torch.inference_mode),
]:
    train_dataloader, test_dataloader = load_data()
    backbone = load_backbone()
    if evaluation:
        backbone.eval()
    train_dataset = TensorDataset(*embed(backbone, train_dataloader, context))
    test_dataset = TensorDataset(*embed(backbone, test_dataloader, context))
    mlp_head = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
    score = train_mlp(mlp_head, DataLoader(train_dataset, 32, shuffle=True), DataLoader(test_dataset, 32, shuffle=True))
    print(f"{name}: {score:.2f}")
