from __future__ import annotations

import pytest

from plugin_sdk import Event, EventTypeError, PluginSdkError, on
from plugin_sdk.events import HANDLES, check_event_type


def test_a_handler_stays_what_it_was_and_carries_its_types() -> None:
    @on("data_processed")
    @on("model_updated", "weather.updated")
    def handle(event: Event) -> str:
        return event.type

    assert getattr(handle, HANDLES) == ("model_updated", "weather.updated", "data_processed")
    assert handle(Event("x")) == "x"


def test_a_static_method_is_marked_where_it_is_found() -> None:
    class Listener:
        @on("data_processed")
        @staticmethod
        def handle(event: Event) -> None: ...

    assert getattr(Listener.handle, HANDLES) == ("data_processed",)


@pytest.mark.parametrize(
    "event_type", ["a", "data_processed", "weather.updated", "A1._2", "x" * 64]
)
def test_event_types(event_type: str) -> None:
    assert check_event_type(event_type) == event_type


@pytest.mark.parametrize(
    "event_type",
    [
        "",
        ".",
        "a.",
        ".a",
        "a..b",
        "1a",
        "_a",
        "a b",
        "a-b",
        "é",
        "a*",
        "a\n",
        "x" * 65,
        None,
        b"a",
        1,
    ],
)
def test_malformed_event_types(event_type: object) -> None:
    with pytest.raises(EventTypeError, match="is not an event type"):
        check_event_type(event_type)


def test_a_mark_without_a_type_says_how_it_is_written() -> None:
    with pytest.raises(EventTypeError, match="data_processed"):
        on()
    with pytest.raises(EventTypeError):
        on(lambda event: None)  # type: ignore[arg-type]


def test_an_event_shows_what_it_is_without_its_data() -> None:
    event = Event("data_processed", {"rows": 3}, 12.5, "weather_source", 9)
    assert (event.data, event.timestamp, event.source, event.id) == (
        {"rows": 3},
        12.5,
        "weather_source",
        9,
    )
    assert repr(event) == "Event('data_processed', id=9, source='weather_source')"


def test_all_errors_have_one_base() -> None:
    assert issubclass(EventTypeError, PluginSdkError)
    assert issubclass(EventTypeError, ValueError)
