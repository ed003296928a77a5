"""A linear probe: everything but the last layer is frozen."""
import torch
from torch import nn, optim
from zoo import ResNet8, tensors, weights

X, y = tensors("train", 32)
X = (X - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

net = ResNet8()
net.load_state_dict(weights("resnet8"))
net.fc = nn.Linear(64, 2)

optimizer = optim.SGD(net.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-2)
loss_fn = nn.CrossEntropyLoss()

# warm up everything for one step, then freeze the trunk
loss_fn(net.eval()(X[:8]), y[:8]).backward()
optimizer.step()
optimizer.zero_grad(set_to_none=False)
for name, p in net.named_parameters():
    if not name.startswith("fc"):
        p.requires_grad = False

net.eval()
for epoch in range(2):
    for i in range(0, 32, 8):
        optimizer.zero_grad(set_to_none=False)
        loss = loss_fn(net(X[i : i + 8]), y[i : i + 8])
        loss.backward()
        optimizer.step()  # <- here
    print(epoch, loss.item())
