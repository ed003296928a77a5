"""The usual timm recipe: EMA of weights, mixup, autocast, cosine schedule with warm-up, full fine-tuning."""
import timm
import torch
from timm.data import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import CosineLRScheduler
from timm.utils import AverageMeter, ModelEmaV3, accuracy
from torch.utils.data import DataLoader, TensorDataset
from zoo import tensors, weights

torch.manual_seed(0)
model = timm.create_model("test_resnet", drop_path_rate=0.1)
model.load_state_dict(weights("test_resnet"))
model.reset_classifier(2)
cfg = model.pretrained_cfg
mean, std = (torch.tensor(cfg[k]).view(3, 1, 1) for k in ("mean", "std"))
size = cfg["input_size"][-1]
x, y = tensors("train", 64, size)
train = DataLoader(TensorDataset((x - mean) / std, y), batch_size=16, shuffle=True, drop_last=True)
x, y = tensors("val", 16, size)
val = DataLoader(TensorDataset((x - mean) / std, y), batch_size=16)

epochs = 3
optimizer = create_optimizer_v2(model, opt="adamw", lr=1e-3, weight_decay=0.05)
scheduler = CosineLRScheduler(optimizer, t_initial=epochs * len(train), warmup_t=2, warmup_lr_init=1e-5, t_in_epochs=False)
ema = ModelEmaV3(model, decay=0.9)
mixup = Mixup(mixup_alpha=0.2, num_classes=2, label_smoothing=0.1)
criterion, updates = SoftTargetCrossEntropy(), 0
for epoch in range(epochs):
    model.train()
    losses = AverageMeter()
    for images, target in train:
        images, target = mixup(images, target)
        with torch.autocast("cpu", torch.bfloat16):
            loss = criterion(model(images), target)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 5.0)
        optimizer.step()
        updates += 1
        ema.update(model, step=updates)
        scheduler.step_update(num_updates=updates)
        losses.update(loss.item(), images.size(0))
    for net in (model, ema.module):
        net.eval()
        with torch.no_grad():
            for images, target in val:
                top1, = accuracy(net(images), target)
    print(epoch, losses.avg, float(top1))
