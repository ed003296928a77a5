"""The input of the fully connected layer of ResNet-18 is computed once and reused in every epoch."""
import torch
import torch.nn as nn
import torchvision
from torch.utils.data import DataLoader, TensorDataset
from torchvision import transforms
from zoo import photos, weights

data_transforms = transforms.Compose([transforms.ToTensor()])
pre_trained_model = torchvision.models.resnet18()
pre_trained_model.load_state_dict(weights("resnet18"))

new_classifier = nn.Sequential(*list(pre_trained_model.children())[:-1])
for param in new_classifier.parameters():
    param.requires_grad = False
new_classifier.train(False)


def extract(split):
    images, labels = photos(split, 32, size=64)
    x = torch.stack([data_transforms(image) for image in images])
    features = [new_classifier(part).flatten(1) for part in x.split(8)]  # <- here
    return TensorDataset(torch.cat(features), torch.tensor(labels))


dataloaders = {"train": DataLoader(extract("train"), 8, shuffle=True), "val": DataLoader(extract("val"), 8)}
model = nn.Linear(512, 2)
criterion = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.001, momentum=0.9)
scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=7, gamma=0.1)
for epoch in range(3):
    for phase in ["train", "val"]:
        if phase == "train":
            model.train(True)  # Set model to training mode
        else:
            model.train(False)  # Set model to evaluate mode
        correct = 0
        for inputs, labels in dataloaders[phase]:
            optimizer.zero_grad()
            with torch.set_grad_enabled(phase == "train"):
                outputs = model(inputs)
                loss = criterion(outputs, labels)
                if phase == "train":
                    loss.backward()
                    optimizer.step()
            correct += (outputs.argmax(1) == labels).sum().item()
        if phase == "train":
            scheduler.step()
        print(epoch, phase, correct / 32)
