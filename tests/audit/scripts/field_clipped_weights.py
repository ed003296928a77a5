"""A WGAN on frozen features: the clipping of weights goes over the frozen part, too."""
import torch
from torch import nn
from zoo import ResNet8, tensors, weights

torch.manual_seed(0)
x, _ = tensors("train", 32)
x = (x - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
critic = ResNet8()
critic.load_state_dict(weights("resnet8"))
critic.requires_grad_(False)
critic.fc = nn.Linear(64, 1)
critic.eval()
generator = nn.Sequential(nn.Linear(8, 3 * 32 * 32), nn.Tanh(), nn.Unflatten(1, (3, 32, 32)))
opt_c = torch.optim.RMSprop(critic.fc.parameters(), lr=5e-4)
opt_g = torch.optim.RMSprop(generator.parameters(), lr=5e-5)
for step in range(10):
    fake = generator(torch.randn(8, 8))
    loss = critic(fake.detach()).mean() - critic(x[torch.randint(0, 32, (8,))]).mean()
    opt_c.zero_grad()
    loss.backward()
    opt_c.step()
    with torch.no_grad():
        params = list(critic.parameters())
        torch._foreach_clamp_min_(params, -0.05)  # <- here
        torch._foreach_clamp_max_(params, 0.05)  # <- here
    if step % 2:
        opt_g.zero_grad()
        (-critic(generator(torch.randn(8, 8))).mean()).backward()
        opt_g.step()
