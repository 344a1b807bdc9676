"""A verdict is the worst of the plugin's own word and the host's facts."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sandbox_host.health.verdict import Facts, HealthStatus, HealthThresholds, Verdict, verdict
from sandbox_host.model import MIB

ORDER = list(HealthStatus)


@pytest.mark.parametrize(
    ("word", "status"),
    [("healthy", "healthy"), ("warning", "degraded"), ("error", "unhealthy")],
)
def test_the_plugins_own_word(word, status):
    made = verdict({"status": word, "message": "m", "metrics": {"rows": 3}}, Facts())
    assert made.status == status
    assert made.message == f'it reports "{word}": m'
    assert made.reported == {"rows": 3}


def test_without_a_report_the_facts_count():
    assert verdict(None, Facts()) == Verdict(
        HealthStatus.HEALTHY,
        "nothing is wrong with it",
        {
            "memory_usage": 0,
            "cpu_usage": 0.0,
            "response_time": 0.0,
            "error_count": 0,
            "queue_depth": 0,
        },
    )


@pytest.mark.parametrize(
    ("facts", "status", "told"),
    [
        (Facts(memory_fraction=0.79), "healthy", "nothing"),
        (Facts(memory_fraction=0.80), "degraded", "80% of its memory budget"),
        (Facts(memory_fraction=0.95), "unhealthy", "95% of its memory budget"),
        (Facts(error_rate=0.05), "degraded", "5% of its calls fail"),
        (Facts(error_rate=0.5), "unhealthy", "50% of its calls fail"),
        (Facts(response_seconds=1.0), "degraded", "1.0 s to answer"),
        (Facts(response_seconds=9.0), "unhealthy", "9.0 s to answer"),
        (Facts(response_seconds=None), "unhealthy", "did not answer"),
        (Facts(response_seconds=None, busy=True), "healthy", "it works, and did not answer"),
        (Facts(queue_depth=79, queue_fraction=0.79), "healthy", "nothing"),
        (Facts(queue_depth=80, queue_fraction=0.80), "degraded", "80 calls wait for it, 80% of"),
        (Facts(queue_depth=100, queue_fraction=1.0), "degraded", "100 calls wait for it, 100%"),
        (Facts(memory_bytes=2**40, cpu_fraction=64.0, operation_seconds=9e9), "healthy", "nothing"),
    ],
)
def test_facts(facts, status, told):
    made = verdict(None, facts)
    assert made.status == status
    assert told in made.message


def test_a_plugin_cannot_talk_itself_better():
    made = verdict({"status": "healthy", "message": "all fine"}, Facts(memory_fraction=0.99))
    assert made.status is HealthStatus.UNHEALTHY
    assert made.message == "it uses 99% of its memory budget"


def test_every_reason_is_told():
    made = verdict({"status": "warning"}, Facts(memory_fraction=0.9, error_rate=0.9))
    assert made.message == (
        'it reports "warning"; it uses 90% of its memory budget; 90% of its calls fail'
    )


@pytest.mark.parametrize(
    ("report", "told"),
    [
        ([], "expected an object, got a list"),
        ("healthy", 'expected an object, got "healthy"'),
        ({}, "status: expected one of"),
        ({"status": True}, "status: expected one of"),
        ({"status": ["healthy"]}, "status: expected one of"),
        ({"status": "HEALTHY"}, 'got "HEALTHY"'),
        ({"status": "healthy", "message": 3}, "message: expected text, got 3"),
        ({"status": "healthy", "metrics": []}, "metrics: expected an object, got a list"),
        ({"status": "healthy", "metrics": {"a": []}}, "metrics.a: expected a number"),
        ({"status": "healthy", "metrics": {"a": float("nan")}}, "metrics.a: expected a finite"),
        ({"status": "healthy", "metrics": {1: 1}}, "metrics: expected a name"),
        ({"status": "healthy", "metrics": {"x" * 65: 1}}, "metrics: expected a name"),
        ({"status": "healthy", "metrics": {str(i): i for i in range(33)}}, "at most 32 entries"),
        ({"status": "healthy", "extra": 1}, 'unknown key "extra"'),
        ({"status": "healthy", b"x": 1}, "unknown key a bytes"),
    ],
)
def test_a_malformed_report_is_unhealthy(report, told):
    made = verdict(report, Facts())
    assert made.status is HealthStatus.UNHEALTHY
    assert made.message.startswith("its health report is malformed: ")
    assert told in made.message


def test_texts_are_cleaned_and_cut():
    made = verdict(
        {"status": "error", "message": "\x1b[2J" + "x" * 9_999, "metrics": {"a\n": "b\x07" * 999}},
        Facts(),
    )
    assert made.message.startswith('it reports "error": \\x1b[2J')
    assert len(made.message) < 600
    assert list(made.reported) == ["a\\n"]
    assert len(made.reported["a\\n"]) == 200
    assert made.reported["a\\n"].isprintable()


def test_document_as_metrics():
    made = verdict(
        None,
        Facts(
            memory_bytes=5, cpu_fraction=0.5, response_seconds=0.25, error_count=2, queue_depth=7
        ),
        HealthThresholds(),
    )
    assert made.metrics == {
        "memory_usage": 5,
        "cpu_usage": 50.0,
        "response_time": 250.0,
        "error_count": 2,
        "queue_depth": 7,
    }


@pytest.mark.parametrize(
    ("facts", "told"),
    [
        (Facts(memory_bytes=100 * MIB), "it uses 100 MiB of memory"),
        (Facts(cpu_fraction=0.8), "it uses 80% CPU"),
        (Facts(operation_seconds=1.0), "its operations take up to 1.0 s"),
    ],
)
def test_document_as_thresholds_where_they_are_set(facts, told):
    limits = HealthThresholds(
        degraded_memory_bytes=100 * MIB, degraded_cpu=0.8, degraded_operation_seconds=1.0
    )
    made = verdict(None, facts, limits)
    assert (made.status, made.message) == (HealthStatus.DEGRADED, told)


def test_a_busy_plugin_is_told_from_one_that_answered():
    assert verdict(None, Facts(busy=True, response_seconds=None)).busy
    assert not verdict(None, Facts(busy=True, response_seconds=0.1)).busy
    assert not verdict(None, Facts(response_seconds=None)).busy


def test_being_busy_excuses_nothing_else():
    made = verdict(None, Facts(busy=True, response_seconds=None, memory_fraction=0.99))
    assert made.status is HealthStatus.UNHEALTHY
    assert made.message == "it uses 99% of its memory budget"


WIRE = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "message", "metrics"]) | st.text(max_size=4) | st.integers(),
            inner | st.sampled_from(["healthy", "warning", "error"]),
            max_size=4,
        )
    ),
    max_leaves=10,
)


@given(WIRE, st.floats(0, 2), st.floats(0, 1), st.none() | st.floats(0, 99))
def test_any_report_gives_a_verdict_no_better_than_the_facts(report, memory, errors, seconds):
    facts = Facts(memory_fraction=memory, error_rate=errors, response_seconds=seconds)
    made = verdict(report, facts)
    assert ORDER.index(made.status) >= ORDER.index(verdict(None, facts).status)
    assert made.message.isprintable()
