"""A frozen text encoder beside a trainable image tower."""
import torch
from torch import nn
from transformers import BertConfig, BertModel
from zoo import ResNet8, tensors

torch.manual_seed(0)
config = BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64, max_position_embeddings=16)
pretrained = BertModel(config).state_dict()
text = BertModel(config)
text.load_state_dict(pretrained)
text.eval().requires_grad_(False)
tower = ResNet8(classes=32)
scale = nn.Parameter(torch.tensor(2.0))
optimizer = torch.optim.AdamW([*tower.parameters(), scale], lr=1e-3)
images, labels = tensors("train", 32)
images = (images - 0.45) / 0.25
captions = torch.randint(1, 100, (2, 8))[labels] + 0
tower.train()
for part in torch.randperm(32).split(8):
    with torch.no_grad():
        t = nn.functional.normalize(text(captions[part]).last_hidden_state[:, 0], dim=1)
    v = nn.functional.normalize(tower(images[part]), dim=1)
    loss = nn.functional.cross_entropy(scale.exp() * v @ t.T, torch.arange(8))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
print(loss.item())
