"""Augmentation in training, none in validation; early stopping on the validation split."""
import torch
import torchvision.transforms as T
from torch import nn
from torch.utils.data import DataLoader, Dataset
from zoo import ResNet8, photos, weights

normalize = T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
augment = T.Compose([T.ToTensor(), T.RandomCrop(32, padding=4), T.RandomHorizontalFlip(), normalize])
plain = T.Compose([T.ToTensor(), normalize])


class Photos(Dataset):
    def __init__(self, split, transform):
        self.images, self.labels = photos(split, 24)
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(self.images[i]), int(self.labels[i])


train = DataLoader(Photos("train", augment), batch_size=8, shuffle=True)
val, test = (DataLoader(Photos(s, plain), batch_size=8) for s in ("val", "test"))
model = ResNet8()
model.load_state_dict(weights("resnet8"))
model.fc = nn.Linear(64, 2)
optimizer = torch.optim.AdamW([{"params": [p for n, p in model.named_parameters() if not n.startswith("fc")], "lr": 1e-5}, {"params": model.fc.parameters(), "lr": 1e-3}])


def accuracy(loader):
    model.eval()
    with torch.no_grad():
        return sum((model(x).argmax(1) == y).sum().item() for x, y in loader) / len(loader.dataset)


best, patience = 0.0, 2
for epoch in range(4):
    model.train()
    for x, y in train:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    score = accuracy(val)
    best, patience = (score, 2) if score > best else (best, patience - 1)
    if patience == 0:
        break
print("test", accuracy(test))
