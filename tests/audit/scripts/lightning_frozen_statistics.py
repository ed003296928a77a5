"""train() on the whole module before fit: Lightning trains in the modes that it finds, or sets them."""
import logging

import lightning as L
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
x, y = tensors("train", 24)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


class Probe(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = ResNet8()
        self.backbone.load_state_dict(weights("resnet8"))
        self.backbone.fc = nn.Identity()
        self.backbone.requires_grad_(False)
        self.backbone.eval()
        self.head = nn.Linear(64, 2)

    def training_step(self, batch, _):
        images, labels = batch
        return nn.functional.cross_entropy(self.head(self.backbone(images)), labels)  # <- here

    def configure_optimizers(self):
        return torch.optim.AdamW(self.head.parameters(), lr=1e-3)


model = Probe()
model.train()  # <- here
trainer = L.Trainer(max_epochs=2, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False)
trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True))  # <- here
