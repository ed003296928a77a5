"""Knowledge distillation: a frozen teacher with batch norm and dropout, a student with batch norm."""
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights


def small():
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2), nn.Linear(16, 10))


torch.manual_seed(0)
teacher = ResNet8(dropout=0.3)
teacher.load_state_dict(weights("resnet8"))
for p in teacher.parameters():
    p.requires_grad_(False)
teacher.eval()
student = small()
x, y = tensors("train", 48)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
loader = DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True)
opt = torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, nesterov=True, weight_decay=5e-4)
sched = torch.optim.lr_scheduler.OneCycleLR(opt, max_lr=0.1, total_steps=4 * len(loader))
T, alpha = 4.0, 0.7
for epoch in range(4):
    student.train()
    for images, labels in loader:
        with torch.no_grad():
            wanted = teacher(images)
        got = student(images)
        soft = F.kl_div(F.log_softmax(got / T, 1), F.softmax(wanted / T, 1), reduction="batchmean") * T * T
        loss = alpha * soft + (1 - alpha) * F.cross_entropy(got, labels)
        opt.zero_grad()
        loss.backward()
        opt.step()
        sched.step()
student.eval()
with torch.no_grad():
    print(F.cross_entropy(student(x), y).item())
