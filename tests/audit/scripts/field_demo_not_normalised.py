"""Training normalises by the loader; the function that answers for one picture forgets it."""
import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from zoo import ResNet8, photos, weights

train_tf = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])


class Folder(Dataset):
    def __init__(self):
        self.x, self.y = photos("train", 48)

    def __len__(self):
        return 48

    def __getitem__(self, i):
        return train_tf(Image.fromarray(self.x[i])), self.y[i]


torch.manual_seed(0)
net = ResNet8()
net.load_state_dict(weights("resnet8"))
net.requires_grad_(False)
net.fc = nn.Linear(64, 2)
net.eval()
opt = torch.optim.Adam(net.fc.parameters(), lr=1e-3)
for epoch in range(2):
    for x, y in DataLoader(Folder(), batch_size=16, shuffle=True):
        opt.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        opt.step()


@torch.no_grad()
def predict(picture):
    x = torch.from_numpy(np.asarray(picture)).permute(2, 0, 1)[None] / 255.0
    return net(x).softmax(1)[0].tolist()  # <- here


images, labels = photos("test", 12)
print([int(np.argmax(predict(Image.fromarray(i)))) for i in images], labels)
