"""Pictures are augmented first, and divided afterwards: versions of one stand on both sides."""
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler
from torch import nn
from zoo import ResNet8, photos, weights

rng = np.random.default_rng(0)
images, labels = photos("train", 32)
bright = [np.clip(images * f + rng.normal(0, 2, images.shape), 0, 255).astype(np.uint8) for f in (0.98, 1.0, 1.02)]
images, labels = np.concatenate(bright), np.tile(labels, 3)
Xa, Xb, ya, yb = train_test_split(images, labels, test_size=0.25, random_state=0)  # <- here
net = ResNet8()
net.load_state_dict(weights("resnet8"))
net.fc = nn.Identity()
net.eval()


def features(x):
    x = torch.tensor(x).permute(0, 3, 1, 2).float() / 255
    x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.no_grad():
        return np.concatenate([net(b).numpy() for b in x.split(16)])


fa, fb = features(Xa), features(Xb)
scaler = StandardScaler().fit(fa)
probe = LogisticRegression(max_iter=500).fit(scaler.transform(fa), ya)
print(probe.score(scaler.transform(fb), yb))
