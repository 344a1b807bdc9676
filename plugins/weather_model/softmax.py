"""Softmax regression: one linear score per class, turned into probabilities.

Multinomial logistic regression as in Bishop, *Pattern Recognition and Machine Learning* (2006),
section 4.3.4, fitted by gradient descent with momentum. Knows nothing of plugins.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
Indices = NDArray[np.int64]

MOMENTUM = 0.9
WEIGHT_DECAY = 1e-3
"""Keeps a class that is hardly ever seen (snow) from growing weights without end."""


class SoftmaxRegression:
    """The model.

    Args:
        features: numbers per row.
        classes: number of classes.
        seed: of the small random weights that it starts from; the same seed and rows give the
            same model.
    """

    def __init__(self, features: int, classes: int, *, seed: int) -> None:
        # One more weight per class: the bias, fed by a constant 1.
        self._weights: Matrix = np.random.default_rng(seed).normal(0, 0.01, (features + 1, classes))

    def fit(
        self, rows: Matrix, labels: Indices, *, epochs: int, rate: float, half_life_rows: int
    ) -> float:
        """Learn from rows that are in order of time; return the final weighted loss.

        Args:
            rows: scaled features, the oldest row first.
            labels: the class index of each row.
            epochs: passes over all rows.
            rate: learning rate.
            half_life_rows: a row this much older counts half as much: what the labels mean
                drifts over the years, and the newest rows know best what they mean now.
        """
        inputs = _with_bias(rows)
        age = np.arange(len(rows))[::-1]
        importance = 0.5 ** (age / half_life_rows)
        importance /= importance.sum()
        targets = np.eye(self._weights.shape[1])[labels]
        velocity = np.zeros_like(self._weights)
        for _ in range(epochs):
            error = (_softmax(inputs @ self._weights) - targets) * importance[:, None]
            gradient = inputs.T @ error + WEIGHT_DECAY * self._weights
            velocity = MOMENTUM * velocity - (1 - MOMENTUM) * rate * gradient
            self._weights = self._weights + velocity
        of_true_class = self.probabilities(rows)[np.arange(len(rows)), labels]
        return float(-(importance * np.log(of_true_class + 1e-12)).sum())

    def probabilities(self, rows: Matrix) -> Matrix:
        """Return one row per input row: the probability of each class."""
        return _softmax(_with_bias(rows) @ self._weights)


def _with_bias(rows: Matrix) -> Matrix:
    return np.hstack([rows, np.ones((len(rows), 1))])


def _softmax(scores: Matrix) -> Matrix:
    # Subtracting the largest score changes nothing but keeps exp() from overflowing.
    exponentials = np.exp(scores - scores.max(axis=1, keepdims=True))
    shares: Matrix = exponentials / exponentials.sum(axis=1, keepdims=True)
    return shares
