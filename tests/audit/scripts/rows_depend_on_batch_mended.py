"""A user's own normalisation standardises by the batch, also in evaluation."""
import torch
from torch import nn
from zoo import ResNet8, tensors, weights

x, y = tensors("train", 32)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)

backbone = ResNet8()
backbone.load_state_dict(weights("resnet8"))


class Whiten(nn.Module):
    def forward(self, f):
        return nn.functional.layer_norm(f, f.shape[1:])


backbone.fc = Whiten()
backbone.eval()
backbone.requires_grad_(False)
rows = []
with torch.inference_mode():
    for part in x.split(8):
        rows.append(backbone(part))
rows = torch.cat(rows)

from sklearn.linear_model import LogisticRegression

print(LogisticRegression().fit(rows.numpy(), y.numpy()).score(rows.numpy(), y.numpy()))
