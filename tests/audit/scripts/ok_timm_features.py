"""timm as its documentation says: evaluation mode, recorded preprocessing, unpooled maps."""
import timm
import torch
from sklearn.linear_model import LogisticRegression
from zoo import photos, weights
from PIL import Image

model = timm.create_model("test_resnet", num_classes=0)
model.load_state_dict({k: v for k, v in weights("test_resnet").items() if "fc" not in k})
model = model.eval()
transform = timm.data.create_transform(**timm.data.resolve_model_data_config(model), is_training=False)


def features(split):
    images, labels = photos(split, 12, size=168)
    x = torch.stack([transform(Image.fromarray(image)) for image in images])
    with torch.no_grad():
        return torch.cat([model.forward_features(part).mean(dim=(2, 3)) for part in x.split(4)]).numpy(), labels


(xa, ya), (xb, yb) = features("train"), features("test")
print(LogisticRegression(max_iter=200).fit(xa, ya).score(xb, yb))
