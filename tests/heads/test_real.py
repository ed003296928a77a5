"""Logistic regression on real CIFAR-10 features of a real backbone equals scikit-learn's."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from headstart.heads import fit_logistic, fit_logistic_path

ROWS = 1200


@pytest.fixture(scope="module")
def features(shared_data: Path) -> tuple[np.ndarray, np.ndarray]:
    """MobileNetV1 up to its 1,024 channels, average-pooled, at 64 pixels: ``(1200, 1024)``."""
    timm = pytest.importorskip("timm")
    model = timm.create_model("mobilenetv1_100", pad_type="same", bn_eps=1e-3).eval()
    weights = load_file(shared_data / "weights" / "mobilenetv1_imagenet.safetensors")
    model.load_state_dict(weights, strict=False)
    trunk = torch.nn.Sequential(model.conv_stem, model.bn1, *model.blocks[:4], model.blocks[4][0])
    table = pq.read_table(shared_data / "cifar10" / "test.parquet").slice(0, ROWS)
    names = sorted(set(table["label"].to_pylist()))
    labels = np.array([names.index(label) for label in table["label"].to_pylist()])
    pixels = np.stack(
        [
            np.asarray(Image.open(io.BytesIO(row["bytes"])).convert("RGB").resize((64, 64)))
            for row in table["image"].to_pylist()
        ]
    )
    rows = []
    for start in range(0, ROWS, 200):
        batch = torch.from_numpy(pixels[start : start + 200].copy()).permute(0, 3, 1, 2).float()
        with torch.inference_mode():
            rows.append(trunk(batch / 127.5 - 1).mean((2, 3)).numpy())
    return np.concatenate(rows), labels


@pytest.mark.real
@pytest.mark.slow
@pytest.mark.parametrize("C", [1e-3, 1e-1])
def test_equals_scikit_learn(features: tuple[np.ndarray, np.ndarray], C: float) -> None:
    x, y = features
    z = StandardScaler().fit_transform(x.astype(np.float64))
    reference = LogisticRegression(C=C, tol=1e-9, max_iter=20_000).fit(z, y)
    head, convergence = fit_logistic(x, y, 10, C=C, tolerance=1e-9)
    assert convergence.reached
    difference = np.linalg.norm(head.weight.T - reference.coef_) / np.linalg.norm(reference.coef_)
    assert difference < 1e-4
    np.testing.assert_allclose(head.predict_proba(x), reference.predict_proba(z), atol=1e-5)


@pytest.mark.real
@pytest.mark.slow
def test_bfloat16_products_lead_to_the_same_choice(
    features: tuple[np.ndarray, np.ndarray],
) -> None:
    x, y = features
    folds = np.arange(ROWS) % 2
    options = {"grid": [1e-3, 1e-2], "drop_hopeless": False}
    exact = fit_logistic_path(x, y, 10, folds, precision="float32", **options)
    rough = fit_logistic_path(x, y, 10, folds, precision="bfloat16", **options)
    assert (rough.gradient <= rough.tolerance).all()
    np.testing.assert_allclose(rough.mean_accuracy, exact.mean_accuracy, atol=0.005)
    np.testing.assert_allclose(rough.mean_log_loss, exact.mean_log_loss, rtol=0.005)
