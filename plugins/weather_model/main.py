"""The plugin's interface: a `Model` over `softmax`, an event handler, what the host asks."""

from __future__ import annotations

from typing import Any

import numpy as np

from plugin_sdk import Event, Model, context, on

from .softmax import Indices, Matrix, SoftmaxRegression

_TABLE_AXES = 2


class WeatherModel(Model):
    """Learns, judges itself, and predicts; knows nothing until it is trained."""

    def __init__(self) -> None:
        self._regression: SoftmaxRegression | None = None
        self._classes: list[str] = []
        self._width = 0
        self._usual_class = 0
        self.trainings = 0
        self.rows_announced = 0

    def train(
        self, features: list[list[float]], labels: list[int], classes: list[str]
    ) -> dict[str, Any]:
        """Learn from scratch and publish ``model_updated``.

        Args:
            features: one list of scaled numbers per day, the oldest day first.
            labels: index into ``classes`` of each day.
            classes: names of the classes.

        Returns:
            ``{"loss", "epochs", "rows"}``; the loss is the weighted cross-entropy in nats.

        Raises:
            ValueError: the rows and labels do not fit together.
        """
        rows = _matrix(features)
        truth = _indices(labels, len(rows), len(classes))
        config = context().config
        regression = SoftmaxRegression(rows.shape[1], len(classes), seed=config["seed"])
        loss = regression.fit(
            rows,
            truth,
            epochs=config["epochs"],
            rate=config["learning_rate"],
            half_life_rows=config["half_life_rows"],
        )
        self._regression, self._classes, self._width = regression, list(classes), rows.shape[1]
        self._usual_class = int(np.bincount(truth).argmax())
        self.trainings += 1
        report = {"loss": loss, "epochs": config["epochs"], "rows": len(rows)}
        context().publish("model_updated", report)
        return report

    def evaluate(self, features: list[list[float]], labels: list[int]) -> dict[str, Any]:
        """Compare predictions with the truth, and with two answers that need no model.

        Returns:
            ``accuracy``; ``baseline_accuracy``, of always answering the most frequent class of
            *these* rows, which nobody can know beforehand; ``training_baseline_accuracy``, of the
            most frequent class of the training rows; ``recall``, the share found of each class
            that occurs; ``rows``. All shares are between 0 and 1.

        Raises:
            ValueError: the rows and labels do not fit together, or nothing was trained.
        """
        guess = self._probabilities(features).argmax(axis=1)
        truth = _indices(labels, len(guess), len(self._classes))
        return {
            "accuracy": float((guess == truth).mean()),
            "baseline_accuracy": float(np.bincount(truth).max() / len(truth)),
            "training_baseline_accuracy": float((truth == self._usual_class).mean()),
            "recall": {
                self._classes[index]: float((guess[truth == index] == index).mean())
                for index in np.unique(truth)
            },
            "rows": len(truth),
        }

    def predict(self, features: list[list[float]]) -> list[dict[str, Any]]:
        """Return, per day, the likeliest ``label``, its ``probability`` and all ``probabilities``.

        Raises:
            ValueError: the rows are malformed, or nothing was trained.
        """
        return [self._answer(row.tolist()) for row in self._probabilities(features)]

    def _answer(self, shares: list[float]) -> dict[str, Any]:
        by_class = dict(zip(self._classes, shares, strict=True))
        label = max(by_class, key=lambda name: by_class[name])
        return {"label": label, "probability": by_class[label], "probabilities": by_class}

    def _probabilities(self, features: list[list[float]]) -> Matrix:
        if self._regression is None:
            raise ValueError("the model is not trained: call train() first")
        rows = _matrix(features)
        if rows.shape[1] != self._width:
            raise ValueError(f"features: trained on {self._width} numbers, got {rows.shape[1]}")
        return self._regression.probabilities(rows)


model = WeatherModel()


@on("data_processed")
def remember_rows(event: Event) -> None:
    """Count the rows that a pipeline announces, whichever pipeline it is."""
    model.rows_announced += int(event.data["rows"])


def _matrix(features: list[list[float]]) -> Matrix:
    rows = np.asarray(features, dtype=np.float64)
    if rows.ndim != _TABLE_AXES or not rows.size or not np.isfinite(rows).all():
        raise ValueError("features: expected lists of finite numbers, all of one length")
    return rows


def _indices(labels: list[int], rows: int, classes: int) -> Indices:
    if any(type(label) is not int or not 0 <= label < classes for label in labels):
        raise ValueError(f"labels: expected an index below {classes} for every row")
    if len(labels) != rows:
        raise ValueError(f"labels: expected {rows}, one per row, got {len(labels)}")
    return np.asarray(labels, dtype=np.int64)


def init_plugin() -> bool:
    """Say that numpy, from the plugin environment, computes here."""
    return bool(np.isfinite(np.ones(1)).all())


def get_metadata() -> dict[str, Any]:
    """Describe the plugin in the words of its plugin.json."""
    return {
        "name": "weather_model",
        "version": "1.0.0",
        "description": (
            "Softmax regression in numpy that names a day's weather from its measurements."
        ),
        "author": "sandbox-host maintainers",
        "dependencies": ["core_framework >= 1.0.0"],
        "capabilities": ["ai_model"],
    }


def health_check() -> dict[str, Any]:
    """Report whether it is trained, and how many processed rows it has heard of."""
    trained = model.trainings > 0
    return {
        "status": "healthy" if trained else "warning",
        "message": "trained" if trained else "not trained yet",
        "metrics": {"trainings": model.trainings, "rows_announced": model.rows_announced},
    }
