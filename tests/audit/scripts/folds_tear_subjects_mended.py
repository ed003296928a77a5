"""Five folds over photographs of 24 subjects, six of each: a subject stands on one side."""
import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import nn
from zoo import ResNet8, tensors, weights

rng = np.random.default_rng(0)
pictures, labels = tensors("train", 24)
labels = np.where(rng.random(24) < 0.1, 1 - labels.numpy(), labels.numpy())  # some do not look like their class
subjects = np.repeat(np.arange(24), 6)
shots = pictures[subjects] + torch.tensor(rng.normal(0, 0.03, (144, 3, 32, 32))).float()
labels = labels[subjects]
backbone = ResNet8()
backbone.load_state_dict(weights("resnet8"))
backbone.fc = nn.Identity()
backbone.eval()
shots = (shots - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
with torch.inference_mode():
    features = torch.cat([backbone(part) for part in shots.split(36)]).numpy()
probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
folds = GroupKFold(5)
scores = cross_val_score(probe, features, labels, groups=subjects, cv=folds)
print(f"accuracy {scores.mean():.2f}")
