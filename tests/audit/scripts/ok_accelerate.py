"""Accelerate: gradient accumulation, two learning rates, warm-up and cosine decay with every step."""
import math

import torch
from accelerate import Accelerator
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import tensors


class Patches(nn.Module):
    def __init__(self, width=32):
        super().__init__()
        self.embed = nn.Conv2d(3, width, 8, 8)
        layer = nn.TransformerEncoderLayer(width, 2, 64, dropout=0.1, batch_first=True)
        self.blocks = nn.TransformerEncoder(layer, 2)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, 2)

    def forward(self, x):
        return self.head(self.norm(self.blocks(self.embed(x).flatten(2).transpose(1, 2))).mean(1))


def main():
    torch.manual_seed(1)
    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    train = DataLoader(TensorDataset(*tensors("train", 32)), batch_size=4, shuffle=True)
    val = DataLoader(TensorDataset(*tensors("val", 16)), batch_size=8)
    model = Patches()
    head = {id(p) for p in model.head.parameters()}
    groups = [
        {"params": [p for p in model.parameters() if id(p) not in head], "lr": 1e-4},
        {"params": list(model.head.parameters()), "lr": 1e-3},
    ]
    optimizer = torch.optim.AdamW(groups, weight_decay=0.05)
    total = 3 * len(train) // 2
    warm = max(1, total // 10)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min((s + 1) / warm, 0.5 * (1 + math.cos(math.pi * s / total))))
    model, optimizer, train, val, scheduler = accelerator.prepare(model, optimizer, train, val, scheduler)
    for epoch in range(3):
        model.train()
        for x, y in train:
            with accelerator.accumulate(model):
                loss = nn.functional.cross_entropy(model(x), y, label_smoothing=0.1)
                accelerator.backward(loss)
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
        model.eval()
        right = 0
        for x, y in val:
            with torch.no_grad():
                predicted, truth = accelerator.gather_for_metrics((model(x).argmax(-1), y))
            right += (predicted == truth).sum().item()
        accelerator.print(epoch, right / 16)


if __name__ == "__main__":
    main()
