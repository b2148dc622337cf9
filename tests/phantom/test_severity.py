"""How hard the presets are: what can be read off coarse brightness, and how strongly findings stand out.

`benchmarks/phantom_probe.py` measures the whole acceptance, with a trained network; this is its cheap half.
"""

import numpy as np
import pytest

from crossray.phantom.draw import draw
from crossray.phantom.labels import labels_of
from crossray.phantom.sample import sample_scene
from crossray.text.observations import OBSERVATIONS

pytestmark = pytest.mark.slow

linear_model = pytest.importorskip("sklearn.linear_model")
metrics = pytest.importorskip("sklearn.metrics")


def _thumbnail(pixels):
    height, width = pixels.shape
    rows = np.linspace(0, height, 17).astype(int)[:-1]
    columns = np.linspace(0, width, 17).astype(int)[:-1]
    sums = np.add.reduceat(np.add.reduceat(pixels.astype(float), rows, 0), columns, 1)
    return sums / np.add.reduceat(np.add.reduceat(np.ones_like(pixels, float), rows, 0), columns, 1)


@pytest.mark.slow
def test_coarse_brightness_does_not_give_realistic_findings_away():
    studies, train = 900, 600
    features, labels = [], []
    for index in range(studies):
        scene = sample_scene(0, index, "realistic")
        features.append(np.concatenate([_thumbnail(draw(scene, v, 48).pixels).ravel() for v in ("frontal", "lateral")]))
        statuses = labels_of(scene)
        labels.append([statuses.get(name) == "positive" for name in OBSERVATIONS])
    x, y = np.asarray(features), np.asarray(labels)
    x = (x - x[:train].mean(0)) / (x[:train].std(0) + 1e-6)
    y = y[:, y.mean(0) >= 0.05]
    areas = []
    for column in y.T:
        probe = linear_model.LogisticRegression(C=0.003, max_iter=200).fit(x[:train], column[:train])
        areas.append(metrics.roc_auc_score(column[train:], probe.decision_function(x[train:])))
    assert len(areas) >= 5
    assert 0.5 < np.mean(areas) <= 0.80
