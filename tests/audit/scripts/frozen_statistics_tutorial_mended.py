"""The transfer-learning tutorial: train and validate in turns, last layer only."""
import torch
import torch.nn as nn
import torch.optim as optim
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset
from zoo import ResNet8, tensors, weights

mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
sets = {}
for phase in ["train", "val"]:
    images, labels = tensors(phase, 24)
    sets[phase] = TensorDataset((images - mean) / std, labels)
dataloaders = {p: DataLoader(s, batch_size=8, shuffle=p == "train") for p, s in sets.items()}

model_conv = ResNet8()
model_conv.load_state_dict(weights("resnet8"))
for param in model_conv.parameters():
    param.requires_grad = False
model_conv.fc = nn.Linear(model_conv.fc.in_features, 2)

criterion = nn.CrossEntropyLoss()
optimizer_conv = optim.SGD(model_conv.fc.parameters(), lr=0.001, momentum=0.9)
scheduler = lr_scheduler.StepLR(optimizer_conv, step_size=7, gamma=0.1)


def train_model(model, num_epochs=2):
    for epoch in range(num_epochs):
        for phase in ["train", "val"]:
            if phase == "train":
                model.eval()
                model.fc.train(True)
            else:
                model.train(False)
            correct = 0
            for inputs, labels in dataloaders[phase]:
                optimizer_conv.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)
                    loss = criterion(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimizer_conv.step()
                correct += (outputs.argmax(1) == labels).sum().item()
            if phase == "train":
                scheduler.step()
            print(f"{epoch} {phase} acc {correct / len(sets[phase]):.2f}")
    return model


train_model(model_conv)
