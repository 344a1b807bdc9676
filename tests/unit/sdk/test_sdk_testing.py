from __future__ import annotations

import os

import pytest

from plugin_sdk import (
    CallError,
    ContextUnavailableError,
    NotSerializableError,
    PermissionDenied,
    QuotaExceededError,
    context,
)
from plugin_sdk.testing import plugin_context
from plugin_sdk.wire.errors import PayloadError


def test_the_context_works_inside_the_block_only() -> None:
    with plugin_context(config={"factor": 2}, name="weather_model") as test:
        assert context() is test.context
        assert context().config == {"factor": 2}
        assert context().name == "weather_model"
        directories = (context().data_dir, context().scratch_dir)
        assert all(os.path.isdir(directory) for directory in directories)
    with pytest.raises(ContextUnavailableError):
        context()
    assert not any(os.path.exists(directory) for directory in directories)


def test_given_directories_are_used_and_kept(tmp_path: os.PathLike[str]) -> None:
    with plugin_context(data_dir=str(tmp_path), scratch_dir=str(tmp_path)):
        assert context().data_dir == context().scratch_dir == str(tmp_path)
    assert os.path.isdir(tmp_path)


def test_what_is_published_is_recorded_as_a_subscriber_gets_it() -> None:
    with plugin_context() as test:
        context().publish("data_processed", {"rows": (1, 2)})
        context().publish("model_updated")
    assert test.published == [("data_processed", {"rows": [1, 2]}), ("model_updated", None)]


def test_grants_can_be_tested() -> None:
    with plugin_context(publish=["data_processed"]) as test:
        context().publish("data_processed")
        with pytest.raises(PermissionDenied):
            context().publish("model_updated")
    assert test.published == [("data_processed", None)]


def test_contexts_nest() -> None:
    with plugin_context(name="outer"):
        with plugin_context(name="inner"):
            assert context().name == "inner"
        assert context().name == "outer"


def test_the_context_is_removed_when_the_test_fails() -> None:
    with pytest.raises(ZeroDivisionError), plugin_context():
        1 / 0  # noqa: B018
    with pytest.raises(ContextUnavailableError):
        context()


def test_a_configuration_that_no_file_can_hold_is_refused() -> None:
    with pytest.raises(PayloadError), plugin_context(config={"when": object()}):
        pytest.fail("the block must not run")


def test_the_store_is_in_memory() -> None:
    with plugin_context(store_bytes=100):
        store = context().store
        store.put("a/1", {"rows": (1, 2)})
        store.put("a/2", None)
        store.put("b", b"x")
        assert (store.get("a/1"), store.get("c", "none")) == ({"rows": [1, 2]}, "none")
        assert (store.keys("a/"), store.keys(after="a/2"), list(store)) == (
            ["a/1", "a/2"],
            ["b"],
            ["a/1", "a/2", "b"],
        )
        assert (store.delete("b"), store.delete("b")) == (True, False)
        assert store.usage()["keys"] == 2
        with pytest.raises(QuotaExceededError):
            store.put("large", "x" * 100)
        with pytest.raises(NotSerializableError):
            store.put("", 1)
        assert store.clear() == 2
    with plugin_context():
        assert context().store.keys() == []


def test_functions_stand_for_other_plugins_and_services() -> None:
    def read(city: str, *, days: int = 1) -> tuple[str, int]:
        return city, days

    def broken() -> None:
        text = "no such city"
        raise LookupError(text)

    calls = {"weather.read": read, "weather.broken": broken}
    with plugin_context(calls=calls, services={"double": lambda number: 2 * number}):
        assert context().call("weather.read", "Bern", days=2) == ["Bern", 2]
        assert context().ask("double", 21) == 42
        with pytest.raises(CallError, match="no such city") as caught:
            context().call("weather.broken")
        assert (caught.value.code, caught.value.type_name) == ("operation", "LookupError")
        with pytest.raises(PermissionDenied, match=r'\("calls": \["weather\.write"\]\)'):
            context().call("weather.write")
        with pytest.raises(PermissionDenied, match=r"permissions\.services"):
            context().ask("other")


def test_what_is_logged_and_how_far_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with plugin_context() as test:
        context().log.info("%d rows", 2)
        context().progress(1)
        context().progress(2, 10)
    assert test.logged == [(20, "2 rows")]
    assert test.progress == [(1, 0), (2, 10)]
    assert capsys.readouterr().err == "INFO 2 rows\n"
