"""Counters: right within the width of a bucket, in memory that does not grow."""

from __future__ import annotations

import math

import pytest

from sandbox_host.observe.metrics import LatencyHistogram, OperationMetrics


def test_quantiles_of_known_samples():
    histogram = LatencyHistogram()
    for milliseconds in range(1, 1001):
        histogram.record(milliseconds / 1_000)
    assert histogram.count == 1000
    for q in (0.01, 0.5, 0.9, 0.99):
        assert histogram.quantile(q) == pytest.approx(q, rel=0.06)
    assert histogram.quantile(1.0) == pytest.approx(1.0, rel=0.06)
    assert histogram.quantile(0.0) == pytest.approx(0.001, rel=0.06)


def test_quantiles_stay_between_the_extremes():
    histogram = LatencyHistogram()
    for value in (0.0, -1.0, 5e-7, 1e9):
        histogram.record(value)
    assert (histogram.minimum, histogram.maximum) == (0.0, 1e9)
    assert 0.0 <= histogram.quantile(0.5) <= 1e-6
    assert histogram.quantile(1.0) <= 1e9


def test_one_sample_is_every_quantile():
    histogram = LatencyHistogram()
    histogram.record(0.123)
    assert {histogram.quantile(q) for q in (0.0, 0.5, 1.0)} == {0.123}


def test_an_empty_histogram():
    assert LatencyHistogram().quantile(0.5) == 0.0


@pytest.mark.parametrize("q", [-0.1, 1.1, math.nan])
def test_no_quantile(q):
    with pytest.raises(ValueError, match="from 0 to 1"):
        LatencyHistogram().quantile(q)


def test_an_operation():
    metrics = OperationMetrics()
    assert (metrics.min_seconds, metrics.max_seconds, metrics.avg_seconds) == (0.0, 0.0, 0.0)
    assert metrics.error_rate == 0.0
    for seconds, failed in ((1.0, False), (3.0, True), (2.0, False), (2.0, False)):
        metrics.record(seconds, failed=failed)
    assert (metrics.count, metrics.failures, metrics.error_rate) == (4, 1, 0.25)
    assert (metrics.total_seconds, metrics.avg_seconds) == (8.0, 2.0)
    assert (metrics.min_seconds, metrics.max_seconds) == (1.0, 3.0)
