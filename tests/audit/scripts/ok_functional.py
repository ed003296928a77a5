"""Meta-learning by functional_call on features of a frozen backbone, and a quantised copy for serving."""
import torch
import torch.nn.functional as F
from torch import nn
from torch.func import functional_call
from zoo import ResNet8, tensors, weights

torch.manual_seed(0)
backbone = ResNet8()
backbone.load_state_dict(weights("resnet8"))
backbone.fc = nn.Identity()
backbone.eval().requires_grad_(False)
x, y = tensors("train", 64)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
with torch.no_grad():
    f = F.layer_norm(torch.cat([backbone(b) for b in x.split(16)]), (64,))
head = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 2))
meta = torch.optim.Adam(head.parameters(), lr=1e-3)
for task in range(8):
    order = torch.randperm(64)
    support, query = order[:16], order[16:48]
    params = dict(head.named_parameters())
    inner = F.cross_entropy(functional_call(head, params, (f[support],)), y[support])
    grads = torch.autograd.grad(inner, tuple(params.values()), create_graph=True)
    fast = {k: p - 0.1 * g for (k, p), g in zip(params.items(), grads)}
    loss = F.cross_entropy(functional_call(head, fast, (f[query],)), y[query])
    meta.zero_grad()
    loss.backward()
    meta.step()
served = torch.ao.quantization.quantize_dynamic(nn.Sequential(backbone, head).eval(), {nn.Linear}, dtype=torch.qint8)
with torch.inference_mode():
    print(served(x[:8]).argmax(1).tolist())
