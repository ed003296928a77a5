"""Early stopping on validation data, test-time augmentation, and the test data once, at the end."""
import copy

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights


def loader(split, n, shuffle=False):
    x, y = tensors(split, n)
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return DataLoader(TensorDataset(x, y), batch_size=16, shuffle=shuffle)


def accuracy(model, data, views=1):
    model.eval()
    hits = total = 0
    with torch.no_grad():
        for x, y in data:
            p = model(x).softmax(1)
            if views == 2:
                p = p + model(x.flip(-1)).softmax(1)
            hits += (p.argmax(1) == y).sum().item()
            total += len(y)
    return hits / total


torch.manual_seed(0)
train, val, test = loader("train", 48, True), loader("val", 32), loader("test", 32)
net = ResNet8(dropout=0.2)
net.load_state_dict(weights("resnet8"))
net.fc = nn.Linear(64, 2)
optimizer = torch.optim.SGD([{"params": net.fc.parameters(), "lr": 0.01}, {"params": [p for n, p in net.named_parameters() if not n.startswith("fc.")], "lr": 0.001}], momentum=0.9)
plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, mode="max", patience=1)
best, kept, patience = -1.0, None, 0
for epoch in range(6):
    net.train()
    for x, y in train:
        optimizer.zero_grad(set_to_none=True)
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()
    score = accuracy(net, val)
    plateau.step(score)
    if score > best:
        best, kept, patience = score, copy.deepcopy(net.state_dict()), 0
    else:
        patience += 1
        if patience >= 2:
            break
net.load_state_dict(kept)
print("test", accuracy(net, test, views=2))
