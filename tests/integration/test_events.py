"""Events between plugins and the application: who may publish what, and who gets it."""

from __future__ import annotations

from typing import Any

import pytest

from sandbox_host import BlockingHost, Event, SandboxHost
from sandbox_host.errors import AdmissionError, OperationError, PluginEndedError, UsageError
from sandbox_host.model import HOST_EVENTS, Cause, Permissions
from tests.support.host import Load, Workshop
from tests.support.traces import eventually

pytestmark = pytest.mark.needs("landlock", "seccomp")

PUBLISHER = """
@operation
def tell(event_type, data=None):
    context().publish(event_type, data)

@operation
def tell_around_the_sdk(event_type):
    from plugin_sdk.wire.codec import pack
    context()._send(event_type, pack(None))
    time.sleep(30)
"""
LISTENER = """
seen = []

@on("data_processed")
def remember(event):
    seen.append([event.type, event.data, event.source, event.id > 0, event.timestamp > 0])

@on("data_processed")
def fail_if_asked(event):
    if event.data == "fail":
        raise RuntimeError("as asked")

@on("data_processed")
def also_remember(event):
    seen.append("again")

@operation
def take():
    taken, seen[:] = list(seen), []
    return taken
"""


@pytest.fixture
def workshop(tmp_path: Any) -> Workshop:
    return Workshop(tmp_path)


@pytest.fixture
def host(workshop: Workshop) -> Any:
    grants = {"publisher": Permissions(publish=("data_processed", "error_*"))}
    with SandboxHost.blocking(workshop.config(grants=grants, event_queue=10)) as opened:
        yield opened


def load_publisher(load: Load) -> Any:
    publish = ["data_processed", "error_occurred"]
    return load(PUBLISHER, name="publisher", permissions={"publish": publish})


def load_listener(load: Load, source: str = LISTENER, name: str = "listener") -> Any:
    return load(source, name=name, events=["data_processed"])


def next_event(events: Any) -> Event:
    event = events.get(timeout=10)
    assert event is not None
    return event


def test_plugin_to_plugin_and_application(host: BlockingHost, load: Load) -> None:
    listener, publisher = load_listener(load), load_publisher(load)
    with host.subscribe("data_processed") as events:
        publisher.call("tell", "data_processed", {"rows": 1461})
        event = next_event(events)
    assert (event.type, event.data, event.source) == (
        "data_processed",
        {"rows": 1461},
        "publisher",
    )
    assert listener.call("take") == [
        ["data_processed", {"rows": 1461}, "publisher", True, True],
        "again",
    ]


def test_application_to_plugin(host: BlockingHost, load: Load) -> None:
    listener = load_listener(load)
    published = host.publish("data_processed", [1, 2])
    assert published.source == "host"
    assert listener.call("take")[0][1:3] == [[1, 2], "host"]


def test_publish_while_loading(host: BlockingHost, load: Load) -> None:
    with host.subscribe("data_processed") as events:
        load(
            "context().publish('data_processed', 'from import')",
            name="publisher",
            permissions={"publish": ["data_processed"]},
        )
        assert next_event(events).data == "from import"


@pytest.mark.parametrize("event_type", sorted({*HOST_EVENTS, "model_updated", "other"}))
def test_publish_without_permission_is_refused_inside(
    host: BlockingHost, load: Load, event_type: str
) -> None:
    publisher = load_publisher(load)
    with host.subscribe(event_type) as events:
        with pytest.raises(OperationError, match=r"PermissionDenied.*permissions\.publish"):
            publisher.call("tell", event_type)
        assert events.get(timeout=0) is None
    assert publisher.state == "ready"


@pytest.mark.parametrize("event_type", sorted({*HOST_EVENTS, "model_updated", "not a type!"}))
def test_publish_around_the_sdk_ends_the_plugin(
    host: BlockingHost, load: Load, event_type: str
) -> None:
    publisher = load_publisher(load)
    with host.subscribe() as events:
        with pytest.raises(PluginEndedError) as caught:
            publisher.call("tell_around_the_sdk", event_type)
        assert caught.value.cause == Cause.PROTOCOL_VIOLATION
        assert {next_event(events).source for _ in range(1)} == {"host"}
    assert publisher._process.ended.wait(10)


@pytest.mark.parametrize("event_type", sorted(HOST_EVENTS))
def test_types_of_the_host_cannot_be_granted(workshop: Workshop, event_type: str) -> None:
    grants = {"*": Permissions(publish=("*",))}
    bundle = workshop.write(PUBLISHER, permissions={"publish": [event_type]})
    with (
        SandboxHost.blocking(workshop.config(grants=grants)) as host,
        pytest.raises(AdmissionError, match=event_type),
    ):
        host.load(bundle)


def test_what_is_not_granted_is_refused_by_name(workshop: Workshop) -> None:
    grants = {"*": Permissions(publish=("data_*",))}
    bundle = workshop.write(PUBLISHER, permissions={"publish": ["model_updated"]})
    with (
        SandboxHost.blocking(workshop.config(grants=grants)) as host,
        pytest.raises(AdmissionError, match=r"permissions\.publish\[0\].*model_updated"),
    ):
        host.load(bundle)


def test_failing_handler_is_told_and_the_others_run(host: BlockingHost, load: Load) -> None:
    listener = load_listener(load)
    with host.subscribe("error_occurred") as errors:
        host.publish("data_processed", "fail")
        error = next_event(errors)
    assert error.source == "host"
    assert error.data["plugin"] == "listener"
    assert error.data["event"] == "data_processed"
    assert "as asked" in error.data["message"]
    assert [entry if entry == "again" else entry[1] for entry in listener.call("take")] == [
        "fail",
        "again",
    ]
    assert listener.state == "ready"


def test_failing_handler_of_errors_makes_no_loop(host: BlockingHost, load: Load) -> None:
    load(
        "@on('error_occurred')\ndef f(event):\n    raise RuntimeError('again')\n",
        name="listener",
        events=["error_occurred"],
    )
    with host.subscribe("error_occurred") as errors:
        host.publish("error_occurred", "one")
        assert next_event(errors).data == "one"
        host.plugin("listener").call("echo")
        assert errors.get(timeout=0.1) is None


def test_slow_subscriber_is_bounded_and_told(host: BlockingHost, load: Load) -> None:
    with host.subscribe("data_processed") as events:
        for number in range(25):
            host.publish("data_processed", number)
        assert [next_event(events).data for _ in range(10)] == list(range(15, 25))
        assert events.dropped == 15
        assert events.get(timeout=0) is None


def test_slow_plugin_is_bounded_and_does_not_hold_up_the_publisher(workshop: Workshop) -> None:
    source = "@on('data_processed')\ndef nap(event):\n    time.sleep(0.2)\n"
    with SandboxHost.blocking(workshop.config(max_outstanding_calls=4)) as host:
        bundle = workshop.write(source, name="listener", events=["data_processed"])
        listener = host.load(bundle)
        for number in range(50):
            host.publish("data_processed", number)
        assert len(listener._process.channel.outstanding()) <= 4
        assert listener.state == "ready"


def test_handler_that_does_not_end_is_ended(host: BlockingHost, load: Load) -> None:
    neighbour = load(name="neighbour")
    listener = load(
        "@on('data_processed')\ndef nap(event):\n    time.sleep(30)\n",
        name="listener",
        events=["data_processed"],
        limits={"wall_time": "200 ms"},
    )
    host.publish("data_processed", 1)
    assert listener._process.ended.wait(10)
    assert listener.cause is Cause.DEADLINE
    assert neighbour.call("echo", 1) == 1


def test_handlers_are_not_blamed_for_those_before_them(host: BlockingHost, load: Load) -> None:
    """Each takes less than the wall time; all of them together take more."""
    listener = load(
        """
        seen = []

        @on('data_processed')
        def nap(event):
            time.sleep(0.4)
            seen.append(event.data)

        @operation
        def take():
            return seen
        """,
        name="listener",
        events=["data_processed"],
        limits={"wall_time": "1500 ms"},
    )
    for number in range(5):
        host.publish("data_processed", number)
    process = listener._process
    assert eventually(lambda: not process.channel.outstanding() or process.ended.is_set())
    assert listener.call("take") == [0, 1, 2, 3, 4]


def test_lifecycle_is_announced(host: BlockingHost, load: Load) -> None:
    with host.subscribe("plugin_loaded", "plugin_unloaded") as events:
        load(name="sample")
        host.unload("sample")
        loaded, unloaded = next_event(events), next_event(events)
    assert (loaded.type, loaded.source, loaded.data) == (
        "plugin_loaded",
        "host",
        {"plugin": "sample"},
    )
    assert unloaded.type == "plugin_unloaded"
    assert unloaded.data == {"plugin": "sample", "cause": "unloaded"}


def test_handlers_are_removed_at_unload(host: BlockingHost, load: Load) -> None:
    load_listener(load)
    host.unload("listener")
    host.publish("data_processed", 1)
    assert load_listener(load).call("take") == []
    assert [len(found) for found in host._core._broker._handlers.values()] == [1]


def test_handler_must_be_listed_in_plugin_json(host: BlockingHost, load: Load) -> None:
    from sandbox_host.errors import StartError

    with pytest.raises(StartError, match=r'"events": \["data_processed"\]'):
        load(LISTENER, name="listener")


@pytest.mark.parametrize("event_type", ["", "a b", "Ünicode", "x" * 65, ".a", "a..b"])
def test_malformed_types(host: BlockingHost, event_type: str) -> None:
    with pytest.raises(UsageError):
        host.publish(event_type, None)
    with pytest.raises(UsageError):
        host.subscribe(event_type)


def test_data_that_cannot_be_carried(host: BlockingHost) -> None:
    with host.subscribe("data_processed") as events:
        with pytest.raises(UsageError, match="data_processed"):
            host.publish("data_processed", {1, 2})
        assert events.get(timeout=0) is None


def test_closing_the_host_ends_subscriptions(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        events = host.subscribe("data_processed")
        host.publish("data_processed", 1)
    assert [event.data for event in events] == [1]
