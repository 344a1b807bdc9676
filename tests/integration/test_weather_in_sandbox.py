"""The example plugins in their sandboxes, one after the other: also what `trace` runs of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from sandbox_host.testing import LoadInSandbox
from tests.support.example_plugins import PLUGINS

pytestmark = pytest.mark.needs

ENVIRONMENT = PLUGINS.parent / ".plugin-env"


@pytest.fixture(scope="module")
def batches() -> dict[str, Any]:
    """What one plugin made for the next."""
    return {}


def test_source(sandbox: LoadInSandbox, batches: dict[str, Any]) -> None:
    source = sandbox(PLUGINS / "weather_source")
    assert source.call("connect") == {"rows": 1461}
    batches["days"] = source.call("read", {"from": "2012-01-01", "to": "2014-12-31"})
    day = dict(zip(batches["days"]["columns"], batches["days"]["rows"][0], strict=True))
    assert source.call("write", [{**day, "date": "2016-01-01"}])["rows"] == 1462
    assert source.call("disconnect") is True


def test_features(sandbox: LoadInSandbox, batches: dict[str, Any]) -> None:
    features = sandbox(PLUGINS / "weather_features")
    features.call("add_stage", "rolling_week")
    batches["features"] = features.call("process", batches["days"], fit=True)
    assert len(batches["features"]["features"]) == 1096


@pytest.mark.skipif(not ENVIRONMENT.is_dir(), reason="needs numpy, which `make env` installs")
def test_model(sandbox: LoadInSandbox, batches: dict[str, Any]) -> None:
    model = sandbox(PLUGINS / "weather_model", plugin_environment=Path(ENVIRONMENT))
    made = batches["features"]
    report = model.call("train", made["features"], made["labels"], made["classes"])
    assert report["rows"] == 1096
    judged = model.call("evaluate", made["features"], made["labels"])
    assert judged["accuracy"] > judged["baseline_accuracy"]
    assert model.call("health_check")["status"] == "healthy"
