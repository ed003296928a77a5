"""Five-fold cross-validation of a probe on features computed once; a new head for every fold."""
import numpy as np
import torch
from sklearn.model_selection import StratifiedKFold
from torch import nn
from zoo import ResNet8, tensors, weights

backbone = ResNet8()
backbone.load_state_dict(weights("resnet8"))
backbone.fc = nn.Identity()
backbone.eval()
x, y = tensors("train", 60)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
with torch.no_grad():
    features = torch.cat([backbone(b) for b in x.split(16)])

scores = []
for fold, (a, b) in enumerate(StratifiedKFold(5, shuffle=True, random_state=0).split(features.numpy(), y.numpy())):
    torch.manual_seed(fold)
    mean, std = features[a].mean(0), features[a].std(0) + 1e-6
    head = nn.Sequential(nn.Dropout(0.1), nn.Linear(64, 2))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-2)
    for epoch in range(10):
        head.train()
        for batch in np.array_split(np.random.permutation(a), 4):
            loss = nn.functional.cross_entropy(head((features[batch] - mean) / std), y[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
    head.eval()
    with torch.inference_mode():
        scores.append((head((features[b] - mean) / std).argmax(1) == y[b]).float().mean().item())
print(f"{np.mean(scores):.3f} ± {np.std(scores):.3f}")
