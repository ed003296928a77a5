"""Fine-tune a small ViT with the Hugging Face Trainer; the best epoch by validation, then one test."""
import tempfile

import numpy as np
import torch
from transformers import Trainer, TrainingArguments, ViTConfig, ViTForImageClassification
from zoo import tensors

torch.manual_seed(0)
mean, std = torch.full((3, 1, 1), 0.5), torch.full((3, 1, 1), 0.5)


def rows(split, n):
    x, y = tensors(split, n)
    return [{"pixel_values": (a - mean) / std, "labels": int(b)} for a, b in zip(x, y)]


config = ViTConfig(image_size=32, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64, num_labels=2, hidden_dropout_prob=0.1)
model = ViTForImageClassification(config)
with tempfile.TemporaryDirectory() as folder:
    args = TrainingArguments(
        folder, num_train_epochs=3, per_device_train_batch_size=8, per_device_eval_batch_size=16, learning_rate=5e-4,
        warmup_steps=2, lr_scheduler_type="cosine", weight_decay=0.01, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, metric_for_best_model="accuracy", report_to=[], disable_tqdm=True, use_cpu=True, logging_strategy="no",
    )
    trainer = Trainer(
        model=model, args=args, train_dataset=rows("train", 32), eval_dataset=rows("val", 16),
        compute_metrics=lambda p: {"accuracy": float((np.argmax(p.predictions, -1) == p.label_ids).mean())},
    )
    trainer.train()
    print(trainer.predict(rows("test", 16)).metrics["test_accuracy"])
