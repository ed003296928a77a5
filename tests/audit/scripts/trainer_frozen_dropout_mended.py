"""Hugging Face Trainer with a frozen encoder, whose dropout stays on."""
import torch
from torch import nn
from transformers import BertConfig, BertModel, Trainer, TrainingArguments
import tempfile

torch.manual_seed(0)
config = BertConfig(vocab_size=100, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, max_position_embeddings=32)
pretrained = BertModel(config).state_dict()
texts = torch.randint(1, 100, (32, 12))
labels = (texts[:, 1] > 50).long()


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.bert = BertModel(config)
        self.bert.load_state_dict(pretrained)
        for p in self.bert.parameters():
            p.requires_grad = False
        self.head = nn.Linear(32, 2)

    def train(self, mode=True):
        super().train(mode)
        self.bert.eval()
        return self

    def forward(self, input_ids, labels=None):
        hidden = self.bert(input_ids).last_hidden_state[:, 0]
        logits = self.head(hidden)
        return {"loss": nn.functional.cross_entropy(logits, labels), "logits": logits}


data = [{"input_ids": t, "labels": l} for t, l in zip(texts, labels)]
with tempfile.TemporaryDirectory() as folder:
    arguments = TrainingArguments(folder, max_steps=6, per_device_train_batch_size=8, report_to=[], disable_tqdm=True, save_strategy="no", use_cpu=True, logging_strategy="no")
    trainer = Trainer(model=Classifier(), args=arguments, train_dataset=data)
    trainer.train()
