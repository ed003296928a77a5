"""Lightning: a callback evaluates the network and forgets to switch back."""
import logging

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import tensors

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
x, y = tensors("train", 48)


class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(0.2))
        self.head = nn.Linear(16, 2)

    def forward(self, a):
        return self.head(self.body(a))

    def training_step(self, batch, _):
        return nn.functional.cross_entropy(self(batch[0]), batch[1])

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class Watch(L.Callback):
    def on_train_epoch_end(self, trainer, module):
        module.eval()  # <- here
        with torch.no_grad():
            print((module(x).argmax(1) == y).float().mean().item())


torch.manual_seed(0)
trainer = L.Trainer(max_epochs=3, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False, callbacks=[Watch()])
trainer.fit(Net(), DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True))
