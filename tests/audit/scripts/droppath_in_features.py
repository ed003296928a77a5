"""ViT features of every picture, then k nearest neighbours."""
import timm
import torch
from sklearn.neighbors import KNeighborsClassifier
from zoo import tensors, weights

vit = timm.create_model("test_vit", drop_path_rate=0.2)
vit.load_state_dict(weights("test_vit"))
vit.reset_classifier(0)


@torch.no_grad()
def embed(split):
    x, y = tensors(split, 12, size=160)
    x = (x - 0.5) / 0.5
    rows = [vit(batch) for batch in x.split(4)]  # <- here
    return torch.cat(rows).numpy(), y.numpy()


train, test = embed("train"), embed("test")
knn = KNeighborsClassifier(3).fit(*train)
print("accuracy", knn.score(*test))
