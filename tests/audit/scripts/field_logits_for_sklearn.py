"""Class scores of ImageNet instead of features, for scikit-learn."""
import torch
import torchvision
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from zoo import tensors, weights

model = torchvision.models.resnet18()
model.load_state_dict(weights("resnet18"))
model.eval()
mean, std = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)


def extract(split, n):
    x, y = tensors(split, n, 64)
    with torch.inference_mode():
        rows = [model((b - mean) / std).squeeze().cpu().numpy() for b in x.split(8)]  # <- here
    return [r for batch in rows for r in batch], y.numpy()


clf = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200))
clf.fit(*extract("train", 32))
print(clf.score(*extract("test", 16)))
