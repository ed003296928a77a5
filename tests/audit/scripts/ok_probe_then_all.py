"""First the head alone, with a body that is left out of the optimizer; then everything, with a new optimizer."""
import torch
from sklearn.model_selection import GridSearchCV, train_test_split
from sklearn.neighbors import KNeighborsClassifier
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights


def run(net, head, optimizer, loader, epochs, body_trains):
    for _ in range(epochs):
        net.train(body_trains)
        head.train()
        for x, y in loader:
            optimizer.zero_grad()
            with torch.set_grad_enabled(body_trains):
                f = net(x)
            nn.functional.cross_entropy(head(f), y).backward()
            optimizer.step()


torch.manual_seed(0)
x, y = tensors("train", 64)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
net = ResNet8()
net.load_state_dict(weights("resnet8"))
net.fc, head = nn.Identity(), nn.Linear(64, 2)
loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
run(net, head, torch.optim.Adam(head.parameters(), 1e-2), loader, 2, False)
run(net, head, torch.optim.SGD([*net.parameters(), *head.parameters()], 1e-3), loader, 2, True)
net.eval()
a, ya = tensors("val", 48)
with torch.no_grad():
    f = net((a - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)).numpy()
fa, fb, la, lb = train_test_split(f, ya.numpy(), test_size=0.25, random_state=1, stratify=ya.numpy())
print(GridSearchCV(KNeighborsClassifier(), {"n_neighbors": [1, 3]}, cv=3).fit(fa, la).score(fb, lb))
