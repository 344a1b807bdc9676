"""What every host does for its plugins: a store of their own, calls of each other, a log."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from sandbox_host import BlockingHost, BlockingPlugin, Limits, Permissions, SandboxHost
from sandbox_host.errors import (
    AdmissionError,
    DeadlineExceededError,
    PluginEndedError,
    UsageError,
)
from sandbox_host.runtime import log_entries
from tests.support.host import HOLD, Load, Workshop
from tests.support.traces import eventually

STORE = """
from plugin_sdk import errors

@operation
def do(name, *arguments, **keywords):
    try:
        return getattr(context().store, name)(*arguments, **keywords)
    except (errors.PluginSdkError, PermissionError) as error:
        return [type(error).__name__, str(error)]

@operation
def raw(*arguments):
    try:
        return context().ask("store", *arguments)
    except errors.PluginSdkError as error:
        return [type(error).__name__, str(error)]

@operation
def odd_keys():
    found = []
    for key in ("", 1, "x" * 257, "\\ud800"):
        try:
            context().store.put(key, 1)
        except errors.NotSerializableError as error:
            found.append(str(error))
    return found

@operation
def set():
    try:
        context().store.put("a", {1})
    except errors.NotSerializableError as error:
        return type(error).__name__

@operation
def pages():
    for number in range(2_500):
        context().store.put(f"{number:04}", None)
    return [len(list(context().store)), context().store.clear()]
"""
WITH_STORE: dict[str, Any] = {"permissions": {"services": ["store"]}}


@pytest.fixture
def host(workshop: Workshop) -> Iterator[BlockingHost]:
    config = workshop.config(grants={"*": Permissions(calls=("*.*",))})
    with SandboxHost.blocking(config) as host:
        yield host


@pytest.fixture
def load(workshop: Workshop, host: BlockingHost) -> Load:
    return workshop.loader(host)


# -- the store ------------------------------------------------------------------------------------


def test_a_store_keeps_what_is_put_into_it(load: Load) -> None:
    plugin = load(STORE, **WITH_STORE)
    value = {"rows": [1, 2.5, None, b"\x00", "ä"], "deep": {"a": []}}
    assert plugin.call("do", "get", "a", "nothing") == "nothing"
    assert plugin.call("do", "put", "a", value) is None
    assert plugin.call("do", "put", "b/1", None) is None
    assert plugin.call("do", "get", "a") == value
    assert plugin.call("do", "keys") == ["a", "b/1"]
    assert plugin.call("do", "keys", "b/") == ["b/1"]
    assert plugin.call("do", "keys", after="a", limit=1) == ["b/1"]
    assert plugin.call("do", "delete", "b/1") is True
    used = plugin.call("do", "usage")
    assert used["keys"] == 1
    assert 30 < used["bytes"] < 100 < used["limit"] == Limits().store_bytes
    assert plugin.call("do", "clear") == 1


def test_it_outlives_the_process_and_the_host(workshop: Workshop) -> None:
    bundle = workshop.write(STORE, **WITH_STORE)
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = host.load(bundle)
        plugin.call("do", "put", "a", 1)
        os.kill(plugin.receipt.pid, signal.SIGKILL)
        assert eventually(lambda: plugin.cause is not None)
        assert host.load(bundle).call("do", "get", "a") == 1
        host.unload("sample")
        assert host.load(bundle).call("do", "get", "a") == 1
    with SandboxHost.blocking(workshop.config()) as host:
        assert host.load(bundle).call("do", "get", "a") == 1
        host.unload("sample")
        host.remove_data("sample")
        assert not (workshop.state_dir / "stores" / "sample").exists()
        assert host.load(bundle).call("do", "get", "a", "gone") == "gone"


def test_each_plugin_has_its_own(load: Load) -> None:
    one, other = load(STORE, **WITH_STORE), load(STORE, name="other", **WITH_STORE)
    one.call("do", "put", "a", 1)
    assert other.call("do", "get", "a") is None


def test_a_full_store_is_an_error_and_no_end(load: Load) -> None:
    plugin = load(STORE, **WITH_STORE, limits={"store": "4 KiB"})
    assert plugin.call("do", "put", "a", b"x" * 4_000) is None
    kind, text = plugin.call("do", "put", "b", b"x" * 100)
    assert kind == "QuotaExceededError"
    assert "of 4 KiB" in text
    assert '"limits": {"store": …}' in text
    assert plugin.call("do", "keys") == ["a"]
    told = {entry.name: entry.value for entry in plugin.receipt.limits}
    assert told["store_bytes"] == "4 KiB"


def test_what_no_store_takes(load: Load) -> None:
    plugin = load(STORE, **WITH_STORE)
    empty, number, long, surrogate = plugin.call("odd_keys")
    assert "not empty" in empty
    assert "is a str, not int" in number
    assert "at most 256 bytes, not 257" in long
    assert "lone surrogates" in surrogate
    kind, text = plugin.call("do", "put", "a", b"x" * 1024 * 1024)
    assert (kind, "put it into context().data_dir" in text) == ("NotSerializableError", True)
    assert plugin.call("set") == "NotSerializableError"


@pytest.mark.parametrize(
    "request_",
    [
        ["put", "k" * 257, b""],
        ["put", "ä" * 129, b""],
        ["put", "", b""],
        ["put", "k", "text"],
        ["put", "k", b"x" * (1024 * 1024 + 1)],
        ["keys", "", "", 0],
        ["keys", "", "", 1_001],
        ["keys", "p" * 257, "", 1],
        ["get", 1],
        ["get"],
        ["__init__"],
        [],
    ],
    ids=lambda request_: "-".join(str(one)[:6] for one in request_) or "nothing",
)
def test_who_goes_around_the_sdk_is_refused(shared: BlockingPlugin, request_: list[Any]) -> None:
    kind, text = shared.call("raw", *request_)
    assert kind == "ServiceError"
    assert text.startswith('"store" was not done: ')


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlockingPlugin]:
    workshop = Workshop(tmp_path_factory.mktemp("shared"))
    ceilings = Limits(message_bytes_per_second=64 * 1024 * 1024, messages_per_second=100_000)
    with SandboxHost.blocking(workshop.config(ceilings=ceilings)) as host:
        limits = {"message_bytes_per_second": "64 MiB", "messages_per_second": 100_000}
        yield host.load(workshop.write(STORE, **WITH_STORE, limits=limits))


def test_all_keys_are_listed_page_by_page(shared: BlockingPlugin) -> None:
    assert shared.call("pages") == [2_500, 2_500]


def test_a_store_that_cannot_be_used_is_told(workshop: Workshop, load: Load) -> None:
    plugin = load(STORE, **WITH_STORE)
    (workshop.state_dir / "stores").write_text("in the way")
    kind, text = plugin.call("do", "put", "a", 1)
    assert (kind, "the store cannot be used: " in text) == ("StoreError", True)
    (workshop.state_dir / "stores").unlink()
    assert plugin.call("do", "put", "a", 1) is None


def test_a_store_is_asked_for_and_may_be_withheld(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        kind, text = host.load(workshop.write(STORE)).call("do", "get", "a")
        assert (kind, '("services": ["store"])' in text) == ("PermissionDenied", True)
        with pytest.raises(UsageError, match="is the host's own"):
            host.offer("store", int)
    config = workshop.config(grants={"*": Permissions(services=("prices.latest",))})
    with (
        SandboxHost.blocking(config) as host,
        pytest.raises(AdmissionError, match='calling the service "store" is not granted'),
    ):
        host.load(workshop.write(STORE, **WITH_STORE))


# -- calls of other plugins -----------------------------------------------------------------------

CALLS = """
from plugin_sdk import errors

@operation
def call(target, *arguments, **keywords):
    return context().call(target, *arguments, **keywords)

@operation
def what_it_meets(target, *arguments):
    try:
        return context().call(target, *arguments)
    except errors.CallError as error:
        return ["CallError", error.code, error.type_name, str(error)]
    except (errors.PluginSdkError, PermissionError) as error:
        return [type(error).__name__, str(error)]

@operation
def through(first, *others):
    return what_it_meets(first, *others)

@operation
def fails(text):
    class OddError(Exception):
        pass
    raise OddError(text)

@operation
def sleep(seconds):
    time.sleep(seconds)

@operation
def ends():
    os._exit(3)

@operation
def many(value):
    yield value

@operation
def hidden():
    return 1

@operation
def call_in_threads(targets):
    found = {}
    def one(target):
        found[target] = what_it_meets(target)
    threads = [threading.Thread(target=one, args=(target,)) for target in targets]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found

@operation
def raw(service, payload):
    return repr(context()._ask(service, payload))
"""
EXPORTS = ["echo", "call", "what_it_meets", "through", "fails", "sleep", "ends", "many", "absent"]


def calling(*calls: str, exports: list[str] | None = None) -> dict[str, Any]:
    """Return what plugin.json has of them."""
    permissions = {"calls": list(calls), "threads": True}
    return {"permissions": permissions, "exports": EXPORTS if exports is None else exports}


@pytest.fixture
def three(load: Load) -> tuple[BlockingPlugin, ...]:
    return tuple(load(CALLS, name=name, **calling("*.*")) for name in ("one", "two", "three"))


Three = tuple[BlockingPlugin, ...]


def test_a_plugin_calls_another(three: Three, workshop: Workshop) -> None:
    one, two, _ = three
    value = {"rows": [1, 2.5, None, b"\x00", "ä"], "big": b"x" * 300_000}
    assert one.call("call", "two.echo", value) == value
    assert one.call("call", "two.call", "three.echo", value="kept") == "kept"
    assert one.call("call", "two.echo", value=[]) == []
    assert two.usage().operations["echo"].calls == 2
    told = {(entry.name, entry.value) for entry in one.receipt.permissions}
    assert ("calls", "*.*") in told
    assert "calls: two.echo" in workshop.config().journal_path.read_text()


def test_what_goes_wrong_arrives_by_name_and_text(three: Three) -> None:
    one = three[0]
    kind, code, name, text = one.call("what_it_meets", "two.fails", "no \x1b[31mway" * 1_000)
    assert (kind, code, name) == ("CallError", "operation", "two.main.fails.<locals>.OddError")
    assert "no \\x1b[31mway" in text
    assert len(text) < 1_200
    told = {
        "four.echo": ("not-found", '"four.echo" was not done: no plugin four is loaded'),
        "two.absent": ("no-such-operation", 'there is no operation "absent"'),
        "two.many": ("operation", "two.many"),
        "two.ends": ("ended", "two.ends was not answered"),
    }
    for target, (code, part) in told.items():
        met = one.call("what_it_meets", target)
        assert met[0] == "CallError", target
        assert part in met[3], target
        if target != "two.many":
            assert code in met[1], target
    assert one.cause is None


def test_both_have_to_allow_it(load: Load) -> None:
    one = load(CALLS, name="one", **calling("two.ec*", "two.hidden"))
    load(CALLS, name="two", **calling(exports=["echo"]))
    assert one.call("what_it_meets", "two.echo", 1) == 1
    kind, text = one.call("what_it_meets", "two.sleep", 0)
    assert (kind, '("calls": ["two.sleep"])' in text) == ("PermissionDenied", True)
    kind, text = one.call("what_it_meets", "two.hidden")
    assert kind == "PermissionDenied"
    assert 'two does not export it. Its plugin.json would have to list it ("exports": ' in text


def test_a_call_is_granted_by_the_operator(workshop: Workshop) -> None:
    config = workshop.config(grants={"one": Permissions(calls=("two.echo",))})
    with SandboxHost.blocking(config) as host:
        problem = r'calling the operation "two\.\*" is not granted'
        with pytest.raises(AdmissionError, match=problem) as refused:
            host.load(workshop.write(CALLS, name="one", **calling("two.*")))
        assert 'calls = ["two.*"]' in str(refused.value)
        host.load(workshop.write(CALLS, name="one", **calling("two.echo")))


@pytest.mark.parametrize(
    ("service", "payload", "told"),
    [
        ("@two.sleep", b"\x92\x90\x80", "asked for the service '@two.sleep' without"),
        ("@two.echo.x", b"\x92\x90\x80", "without the permission"),
        ("@", b"\x92\x90\x80", "without the permission"),
        ("@two.echo", b"\x93\x91\xc0\x80\x91\x00", "no list of arguments and keywords"),
        ("@two.echo", b"", "no list of arguments and keywords"),
    ],
    ids=["another", "longer", "nothing", "a stream", "empty"],
)
def test_who_goes_around_the_check_ends(
    load: Load, service: str, payload: bytes, told: str
) -> None:
    one = load(CALLS, name="one", **calling("two.echo"))
    two = load(CALLS, name="two", **calling())
    with pytest.raises(Exception, match="broke the protocol"):
        one.call("raw", service, payload)
    assert told in one._process.cause_text
    assert two.call("echo", 1) == 1


def test_arguments_that_are_none_cost_the_callee_nothing(three: Three) -> None:
    one, two, _ = three
    shown = one.call("raw", "@two.echo", b"\x92\xc1")
    assert "ok=False" in shown
    assert two.call("echo", 1) == 1


def test_a_cycle_is_found(three: Three) -> None:
    one, _, three_ = three
    assert "one waits for this service, and cannot be called" in str(
        one.call("what_it_meets", "one.echo", 1)
    )
    met = one.call("through", "two.through", "one.echo", 1)
    assert met[:2] == ["CallError", "reentrant"]
    assert "one waits for this service, by way of two, and cannot be called" in met[3]
    met = one.call("through", "two.through", "three.through", "one.echo", 1)
    assert met[:2] == ["CallError", "reentrant"]
    assert "one waits for this service, by way of two, three, and cannot be called" in met[3]
    # Nothing of it is left.
    assert three_.call("through", "two.through", "one.echo", 1) == 1


def test_the_deadline_travels_and_shrinks(three: Three) -> None:
    one, two, _ = three
    with pytest.raises(DeadlineExceededError):
        one.call("call", "two.call", "three.sleep", 60, deadline=0.5)
    assert two.call("echo", 1, deadline=10.0) == 1
    assert three[2].call("echo", 1, deadline=10.0) == 1
    assert [plugin.cause for plugin in three] == [None] * 3


def test_the_callees_own_budget_holds(load: Load) -> None:
    one = load(CALLS, name="one", **calling("*.*"))
    load(CALLS, name="two", **calling(), limits={"wall_time": "300 ms"})
    kind, code, _, text = one.call("what_it_meets", "two.sleep", 60)
    assert (kind, code) == ("CallError", DeadlineExceededError.code)
    assert "missed its deadline of 0.3 s" in text


def test_a_call_that_nobody_waits_for_ends_at_the_callee(three: Three) -> None:
    one, two, _ = three
    with pytest.raises(DeadlineExceededError):
        one.call("call", "two.sleep", 5, deadline=0.3)
    assert two.call("echo", 1, deadline=2.0) == 1


def test_threads_of_one_plugin_wait_for_each_other(three: Three) -> None:
    targets = ["two.echo", "three.echo", "one.echo"]
    found = three[0].call("call_in_threads", targets, deadline=20.0)
    assert found["two.echo"] is None
    assert found["one.echo"][1] == "reentrant"


@pytest.mark.parametrize("concurrency", [1, 2])
def test_as_much_at_a_time_as_the_plugin_works_on(
    load: Load, workshop: Workshop, concurrency: int
) -> None:
    two = load(CALLS + HOLD, name="two", **calling(exports=["hold", "echo"]))
    load(CALLS, name="three", **calling())
    one = load(CALLS, name="one", concurrency=concurrency, **calling("*.*"))
    with ThreadPoolExecutor(2) as pool:
        held = pool.submit(one.call, "call", "two.hold", "held")
        assert eventually(lambda: bool(two._process.channel.outstanding()))
        other = pool.submit(one.call, "call", "three.echo", "other")
        if concurrency > 1:
            assert other.result(20) == "other"
            assert not held.done()
        workshop.let_go("two")
        assert (held.result(20), other.result(20)) == ("held", "other")


def test_a_callee_that_has_ended(three: Three) -> None:
    one, two, _ = three
    os.kill(two.receipt.pid, signal.SIGKILL)
    met = one.call("what_it_meets", "two.echo", 1)
    assert met[:2] == ["CallError", "ended"]


# -- the log --------------------------------------------------------------------------------------

LOGS = """
@operation
def loaded():
    return "logging" in sys.modules

@operation
def by_context(text):
    context().log.warning(text)

@operation
def by_logging(level, text, name="sample.part"):
    import logging
    logging.getLogger(name).log(level, text)

@operation
def configured(**options):
    import logging
    logging.basicConfig(**options)
    return [type(one).__name__ for one in logging.root.handlers]

@operation
def by_dict():
    import logging.config
    handler = {"class": "logging.StreamHandler", "formatter": "own"}
    logging.config.dictConfig({
        "version": 1,
        "formatters": {"own": {"format": "own: %(message)s"}},
        "handlers": {"own": handler},
        "root": {"handlers": ["own"], "level": "DEBUG"},
    })
    logging.debug("by a handler of its own")

@operation
def caught():
    import logging
    try:
        1 / 0
    except ZeroDivisionError:
        logging.exception("while dividing")

@operation
def flood(count):
    for number in range(count):
        context().log.error("one of many")

@operation
def forged(level, name, payload):
    from plugin_sdk.wire.messages import Log
    context()._ask.__self__.send(Log(level, name, payload=payload))
"""


def test_logging_arrives_with_level_and_logger(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = load(LOGS)
    assert plugin.call("loaded") is False
    with caplog.at_level(logging.INFO, "sandbox_host.plugin"):
        plugin.call("by_logging", logging.WARNING, "first\nERROR forged \x1b[2J")
        plugin.call("by_logging", logging.INFO, "below the root's level")
        plugin.call("by_logging", 35, "between", "odd\nname")
        plugin.call("by_context", "by the SDK")
        plugin.call("caught")
        assert eventually(lambda: log_entries._records._waiting == 0)
    records = [r for r in caplog.records if r.name == "sandbox_host.plugin.sample"]
    told = [(r.levelno, r.__dict__["plugin_logger"], r.getMessage()) for r in records]
    assert told[:3] == [
        (30, "sample.part", "sample.part: first\n    | ERROR forged \\x1b[2J"),
        (35, "odd?name", "odd?name: between"),
        (30, "sample", "sample: by the SDK"),
    ]
    lines = plugin.log_tail(20)
    assert lines[:5] == [
        "WARNING sample.part: first",
        "    ERROR forged \\x1b[2J",
        "LEVEL35 odd?name: between",
        "WARNING by the SDK",
        "ERROR root: while dividing",
    ]
    assert lines[-1] == "    ZeroDivisionError: division by zero"


def test_logging_can_be_configured(load: Load) -> None:
    plugin = load(LOGS)
    assert plugin.call("configured", level="DEBUG", format="%(message)s!") == ["HostHandler"]
    plugin.call("by_logging", logging.DEBUG, "as deep as that")
    assert plugin.log_tail(1) == ["DEBUG sample.part: as deep as that"]
    plugin.call("by_dict")
    assert plugin.log_tail(1) == ["own: by a handler of its own"]


def test_a_flood_of_entries_is_in_the_file_alone(
    load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    plugin = load(LOGS)
    with caplog.at_level(logging.ERROR, "sandbox_host.plugin"):
        plugin.call("flood", 1_500)

        def told() -> int:
            return sum(r.name == "sandbox_host.plugin.sample" for r in list(caplog.records))

        assert eventually(lambda: told() >= 1_000)
        assert eventually(lambda: log_entries._records._waiting == 0)
        assert told() < 1_400
    assert len(plugin.log_path.read_text().splitlines()) == 1_500


def test_levels_and_texts_out_of_range(load: Load) -> None:
    plugin = load(LOGS)
    plugin.call("forged", 0, "x", b"\xa3low")
    plugin.call("forged", 2**53 - 1, "x", b"\xa4high")
    assert plugin.log_tail(2) == ["DEBUG x: low", "CRITICAL x: high"]
    plugin.call("by_context", "x" * 100_000)
    assert plugin.log_tail(1)[0].startswith("WARNING xxx")
    assert plugin.cause is None


@pytest.mark.parametrize(
    "payload", [b"\x01", b"", b"\xda\x80\x00" + b"x" * 0x8000], ids=["a number", "nothing", "long"]
)
def test_an_entry_that_is_none_ends_it(load: Load, payload: bytes) -> None:
    plugin = load(LOGS)
    # It may answer in the moment in which it is asked where it stands.
    with contextlib.suppress(PluginEndedError):
        plugin.call("forged", 30, "x", payload)
    assert eventually(lambda: plugin.cause == "protocol-violation")
