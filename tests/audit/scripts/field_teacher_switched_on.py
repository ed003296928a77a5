"""Teacher and student in one ModuleDict; train() switches on the teacher's dropout and batch norms."""
import torch
import torch.nn.functional as F
from torch import nn
from zoo import ResNet8, tensors, weights

torch.manual_seed(0)
x, y = tensors("train", 48)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
nets = nn.ModuleDict({"teacher": ResNet8(dropout=0.3), "student": nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10))})
nets["teacher"].load_state_dict(weights("resnet8"))
nets["teacher"].requires_grad_(False).eval()
opt = torch.optim.Adam(nets["student"].parameters(), lr=1e-3)
for epoch in range(3):
    nets.train()
    for i in torch.randperm(48).split(16):
        with torch.no_grad():
            soft = nets["teacher"](x[i]).softmax(1)  # <- here
        loss = F.kl_div(nets["student"](x[i]).log_softmax(1), soft, reduction="batchmean")
        opt.zero_grad()
        loss.backward()
        opt.step()
