"""ResNet-18 on CIFAR-10: fine-tuning, and as a feature extractor, with SGD and with Adam."""
import copy

import torch
import torch.nn as nn
import torch.optim as optim
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset
from torchvision.models import resnet18
from zoo import cifar10, weights


def load_cifar10_pytorch(n=32, batch_size=16):
    mean = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)
    std = torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    loaders = {}
    for split in ("train", "test"):
        images, labels = cifar10(split, n)
        x = torch.tensor(images).permute(0, 3, 1, 2).float() / 255
        loaders[split] = DataLoader(TensorDataset((x - mean) / std, torch.tensor(labels)), batch_size, shuffle=split == "train")
    return loaders


def train_val_model(model, criterion, optimizer, dataloaders, scheduler, num_epochs=2):
    best_model_wts, best_acc = copy.deepcopy(model.state_dict()), 0.0
    for epoch in range(num_epochs):
        for phase in ["train", "test"]:
            if phase == "train":
                model.train()  # <- mode
            else:
                model.eval()
            running_corrects = 0
            for inputs, labels in dataloaders[phase]:
                optimizer.zero_grad()
                with torch.set_grad_enabled(phase == "train"):
                    outputs = model(inputs)  # <- forward
                    loss = criterion(outputs, labels)
                    if phase == "train":
                        loss.backward()
                        optimizer.step()
                running_corrects += (outputs.argmax(1) == labels).sum().item()
            if phase == "train":
                scheduler.step()
            acc = running_corrects / len(dataloaders[phase].dataset)
            if phase == "test" and acc > best_acc:
                best_acc, best_model_wts = acc, copy.deepcopy(model.state_dict())
    print(f"Best val Acc: {100 * best_acc:.2f}%")
    model.load_state_dict(best_model_wts)  # <- selection
    return model


def load_pretrained():
    model = resnet18()
    model.load_state_dict(weights("resnet18"))
    return model


dataloaders = load_cifar10_pytorch()
criterion = nn.CrossEntropyLoss()
for make in (lambda p: optim.SGD(p, lr=0.001, momentum=0.9), lambda p: optim.Adam(p, lr=0.001)):
    model_ft = load_pretrained()
    model_ft.fc = nn.Linear(model_ft.fc.in_features, 10)
    optimizer_ft = make(model_ft.parameters())
    train_val_model(model_ft, criterion, optimizer_ft, dataloaders, lr_scheduler.StepLR(optimizer_ft, 7, 0.1))
for make in (lambda p: optim.SGD(p, lr=0.001, momentum=0.9), lambda p: optim.Adam(p, lr=0.001)):
    model_conv = load_pretrained()
    for param in model_conv.parameters():
        param.requires_grad = False
    model_conv.fc = nn.Linear(model_conv.fc.in_features, 10)
    optimizer_conv = make(model_conv.fc.parameters())
    train_val_model(model_conv, criterion, optimizer_conv, dataloaders, lr_scheduler.StepLR(optimizer_conv, 7, 0.1))
