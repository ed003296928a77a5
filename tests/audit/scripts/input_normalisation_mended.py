"""Thread 002: new_classifier = Sequential(*children[:-1]); the pictures are not normalised."""
import torch
import torch.nn as nn
import torchvision
import torchvision.transforms as T
from zoo import photos, weights

transform = T.Compose([T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
pre_trained_model = torchvision.models.resnet18()
pre_trained_model.load_state_dict(weights("resnet18"))
new_classifier = nn.Sequential(*list(pre_trained_model.children())[:-1])
for param in new_classifier.parameters():
    param.requires_grad = False
new_classifier.train(False)


def extract(split):
    images, labels = photos(split, 24, size=64)
    features = []
    for start in range(0, len(images), 8):
        inputs = torch.stack([transform(image) for image in images[start : start + 8]])
        features.append(new_classifier(inputs).flatten(1))
    return torch.cat(features), torch.tensor(labels)


x, y = extract("train")
classifier = nn.Linear(512, 2)
optimizer = torch.optim.Adam(classifier.parameters(), lr=1e-3)
for epoch in range(5):
    optimizer.zero_grad()
    loss = nn.CrossEntropyLoss()(classifier(x), y)
    loss.backward()
    optimizer.step()
print(loss.item())
