"""Sentence features of a BERT built from a config, which starts in training mode, for scikit-learn."""
import torch
from sklearn.linear_model import RidgeClassifier
from transformers import BertConfig, BertModel

torch.manual_seed(0)
config = BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=16)
encoder = BertModel(config)
texts = torch.randint(1, 100, (64, 12))
mask = torch.ones_like(texts)
rows = []
with torch.no_grad():
    for ids, m in zip(texts.split(16), mask.split(16)):
        hidden = encoder(input_ids=ids, attention_mask=m).last_hidden_state  # <- here
        rows.append((hidden * m[..., None]).sum(1) / m.sum(1, keepdim=True))
rows = torch.cat(rows).numpy()
labels = (texts[:, 1] > 50).long().numpy()
print(RidgeClassifier().fit(rows[:48], labels[:48]).score(rows[48:], labels[48:]))
