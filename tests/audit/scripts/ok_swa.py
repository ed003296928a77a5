"""Weight averaging, with update_bn before the evaluation."""
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn, update_bn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors

(xa, ya), (xb, yb) = tensors("train", 32), tensors("test", 16)
loader = DataLoader(TensorDataset(xa, ya), batch_size=8, shuffle=True)
model = ResNet8(classes=2)
ema = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
optimizer = torch.optim.SGD(model.parameters(), lr=0.02, momentum=0.9, nesterov=True)
for epoch in range(2):
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        ema.update_parameters(model)
update_bn(loader, ema)
ema.eval()
with torch.no_grad():
    print((ema(xb).argmax(1) == yb).float().mean().item())
