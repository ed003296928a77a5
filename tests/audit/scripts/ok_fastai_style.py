"""Callbacks, freeze, one cycle, unfreeze, one cycle: norms of the frozen body are trained, as fastai does."""
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights


class Learner:
    def __init__(self, dls, model, groups, loss_func, cbs=()):
        self.dls, self.model, self.groups, self.loss_func, self.cbs = dls, model, groups, loss_func, cbs

    def freeze_to(self, n):
        for i, group in enumerate(self.groups):
            for m in group.modules():
                norm = isinstance(m, nn.BatchNorm2d)
                for p in m.parameters(recurse=False):
                    p.requires_grad_(i >= n or norm)

    def __call__(self, name):
        for cb in self.cbs:
            getattr(cb, name, lambda learner: None)(self)

    def fit_one_cycle(self, epochs, lrs):
        params = [{"params": [p for p in g.parameters() if p.requires_grad], "lr": lr} for g, lr in zip(self.groups, lrs)]
        self.opt = torch.optim.AdamW([g for g in params if g["params"]])
        self.sched = torch.optim.lr_scheduler.OneCycleLR(self.opt, [g["lr"] for g in params if g["params"]], epochs=epochs, steps_per_epoch=len(self.dls[0]))
        for self.epoch in range(epochs):
            for self.training, dl in zip((True, False), self.dls):
                self.model.train(self.training)
                with torch.set_grad_enabled(self.training):
                    for self.batch in dl:
                        self.one_batch()
            self("after_epoch")

    def one_batch(self):
        xb, yb = self.batch
        self.loss = self.loss_func(self.model(xb), yb)
        if self.training:
            self.loss.backward()
            self.opt.step()
            self.sched.step()
            self.opt.zero_grad()
        self("after_batch")


class Recorder:
    def __init__(self):
        self.values = []

    def after_batch(self, learner):
        if not learner.training:
            self.values.append(learner.loss.item())

    def after_epoch(self, learner):
        print(learner.epoch, sum(self.values) / len(self.values))


def data(split, n, **kw):
    x, y = tensors(split, n)
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    return DataLoader(TensorDataset(x, y), batch_size=16, **kw)


torch.manual_seed(0)
net = ResNet8()
net.load_state_dict(weights("resnet8"))
body = nn.Sequential(*list(net.children())[:-2])
head = nn.Sequential(nn.BatchNorm1d(64), nn.Dropout(0.25), nn.Linear(64, 32, bias=False), nn.ReLU(), nn.BatchNorm1d(32), nn.Linear(32, 2))
learn = Learner((data("train", 64, shuffle=True, drop_last=True), data("val", 16)), nn.Sequential(body, head), [body, head], nn.CrossEntropyLoss(), [Recorder()])
learn.freeze_to(1)
learn.fit_one_cycle(1, (1e-3, 1e-2))
learn.freeze_to(0)
learn.fit_one_cycle(2, (1e-4, 1e-3))
