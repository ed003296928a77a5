"""DistributedDataParallel with one process: full fine-tuning of a network with batch norm."""
import os
import tempfile

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset
from zoo import ResNet8, tensors, weights


def evaluate(model, loader):
    model.eval()
    right = 0
    with torch.no_grad():
        for x, y in loader:
            right += (model(x).argmax(1) == y).sum()
    dist.all_reduce(right)
    return right.item() / len(loader.dataset)


def main():
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{os.path.join(folder, 'rendezvous')}", rank=0, world_size=1)
        torch.manual_seed(0)
        norm = torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1), torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
        sets = {s: TensorDataset((tensors(s, n)[0] - norm[0]) / norm[1], tensors(s, n)[1]) for s, n in (("train", 48), ("val", 16))}
        net = ResNet8(dropout=0.1)
        net.load_state_dict(weights("resnet8"))
        net.fc = nn.Linear(64, 2)
        model = DistributedDataParallel(net)
        sampler = DistributedSampler(sets["train"], shuffle=True)
        train = DataLoader(sets["train"], batch_size=16, sampler=sampler)
        val = DataLoader(sets["val"], batch_size=16)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
        for epoch in range(2):
            sampler.set_epoch(epoch)
            model.train()
            for x, y in train:
                optimizer.zero_grad()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.step()
            print(epoch, evaluate(model, val))
        dist.destroy_process_group()


main()
