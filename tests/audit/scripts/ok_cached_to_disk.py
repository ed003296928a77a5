"""Features to disk, then logistic regression; parameters chosen inside the training split."""
import os
import tempfile

import numpy as np
import torch
import torchvision
from sklearn.linear_model import LogisticRegressionCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as T
from zoo import photos, weights

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


class Pictures(Dataset):
    def __init__(self, split, n):
        self.images, self.labels = photos(split, n, 64)
        self.transform = T.Compose([T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(self.images[i]), int(self.labels[i])


@torch.inference_mode()
def embed(model, loader):
    model.eval()
    out, target = [], []
    for x, y in loader:
        out.append(model(x).numpy())
        target.append(y.numpy())
    return np.concatenate(out), np.concatenate(target)


net = torchvision.models.resnet18()
net.load_state_dict(weights("resnet18"))
net.fc = torch.nn.Identity()
with tempfile.TemporaryDirectory() as d:
    for split, n in (("train", 48), ("test", 24)):
        f, t = embed(net, DataLoader(Pictures(split, n), batch_size=16))
        np.savez(os.path.join(d, split), f=f, t=t)
    a, b = (np.load(os.path.join(d, s + ".npz")) for s in ("train", "test"))
    probe = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=3, cv=3, max_iter=200)).fit(a["f"], a["t"])
    print(probe.score(b["f"], b["t"]))
