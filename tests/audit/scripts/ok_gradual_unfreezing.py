"""The head first, then block after block, each with a new parameter group."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights

x, y = tensors("train", 32)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
model = ResNet8()
model.load_state_dict(weights("resnet8"))
model.requires_grad_(False)
model.fc = nn.Linear(64, 2)
optimizer = torch.optim.AdamW(model.fc.parameters(), lr=1e-3)
blocks = [model.layer3, model.layer2, model.layer1]
for epoch in range(4):
    model.eval()
    model.fc.train()
    for block in blocks[:epoch]:
        block.train()
    for a, b in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(a), b).backward()
        optimizer.step()
    if epoch < len(blocks):
        blocks[epoch].requires_grad_(True)
        optimizer.add_param_group({"params": list(blocks[epoch].parameters()), "lr": 1e-4 / (epoch + 1)})
print("groups", len(optimizer.param_groups))
