"""timm: create_model returns a network in training mode."""
import timm
import torch
from sklearn.linear_model import LogisticRegression
from zoo import tensors, weights

model = timm.create_model("test_resnet", num_classes=0)
model.load_state_dict({k: v for k, v in weights("test_resnet").items() if "fc" not in k})
model = model.eval()
config = timm.data.resolve_model_data_config(model)
mean, std = (torch.tensor(config[k]).view(3, 1, 1) for k in ("mean", "std"))


def features(split):
    x, y = tensors(split, 16, size=160)
    with torch.inference_mode():
        return torch.cat([model((part - mean) / std) for part in x.split(8)]).numpy(), y.numpy()


classifier = LogisticRegression(max_iter=100).fit(*features("train"))
print("test accuracy", classifier.score(*features("test")))
