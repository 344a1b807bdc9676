"""A plugin is recorded, and its recording played against it and against other versions of it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import Instance, Permissions, RecordingOptions, Rehearsal, SandboxHost, State
from sandbox_host.bundle.source import read_bundle
from sandbox_host.errors import OperationError, RecordingError, ReloadError, UsageError
from sandbox_host.observe.recording import Recording
from sandbox_host.observe.recording_reader import read_recording
from sandbox_host.runtime.blocking import BlockingHost
from sandbox_host.runtime.replay import Replayed, ReplayOptions, replay
from tests.support.command_line import LocalCommandLine
from tests.support.host import Workshop

pytestmark = pytest.mark.needs

SOURCE = """
from plugin_sdk import errors

@operation
def predict(rows, *, scale=1, token=""):
    context().publish("model_updated", {"rows": len(rows), "token": token})
    found = [{"temperature": FIRST + scale * row, "at": time.time()} for row in rows]
    return {"rows": found, "token": token}

@operation
def fails(kind):
    raise ERROR("hunter2 is no " + kind)

@operation
def count(until):
    for number in range(until):
        yield {"number": number * STEP}
    return "counted"

@operation
def total(numbers):
    return sum(numbers) + FIRST

@operation
def price(symbol):
    try:
        return context().ask("prices", symbol)
    except errors.ServiceError as error:
        return str(error)

@operation
def remember(key, value):
    store = context().store
    was = store.get(key)
    store.put(key, value)
    return was

@operation
def nested(value):
    return context().call("other.echo", value)

@on("user_action")
def handle(event):
    if event.data == "break":
        raise ERROR(event.data)
    context().publish("model_updated", {"seen": event.data, "from": event.source})
"""
BEFORE = {"FIRST": "20.5", "STEP": "1", "ERROR": "ValueError"}
PERMISSIONS = {
    "services": ["prices", "store"],
    "publish": ["model_updated"],
    "calls": ["other.echo"],
}
GRANTS = {
    "*": Permissions(
        services=("prices", "store"), publish=("model_updated",), calls=("other.echo",)
    ),
}
SERVICES = ("prices", "store")


def version(workshop: Workshop, number: int = 1, *, extra: str = "", **changed: str) -> Path:
    values = "\n".join(f"{name} = {value}" for name, value in {**BEFORE, **changed}.items())
    return workshop.write(
        values + SOURCE + extra,
        version=f"{number}.0.0",
        permissions=PERMISSIONS,
        events=["user_action"],
    )


class Prices:
    """What the application offers: another value each time."""

    def __init__(self) -> None:
        self.asked = 0

    def latest(self, symbol: str) -> float:
        self.asked += 1
        return 100.0 + self.asked


@contextlib.contextmanager
def opened(workshop: Workshop) -> Iterator[BlockingHost]:
    with BlockingHost(workshop.config(grants=GRANTS)) as host:
        host.offer("prices", Prices().latest)
        yield host


@pytest.fixture(scope="module")
def recorded(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recording of everything above, made by an application."""
    workshop = Workshop(tmp_path_factory.mktemp("recorded"))
    file = workshop.root / "all.recording"
    with opened(workshop) as host:
        options = RecordingOptions(file, redact=("Token",))
        plugin = host.load(version(workshop), record=options)
        plugin.call("predict", [1.0, 2.0, 3.0, 4.0], scale=2, token="hunter2")
        with pytest.raises(OperationError):
            plugin.call("fails", "number")
        with plugin.stream("count", 100) as stream:
            assert sum(item["number"] for item in stream) == 4950
        assert plugin.call("total", iter([1, 2, 3])) == 26.5
        assert [plugin.call("price", "ABC") for _ in range(2)] == [101.0, 102.0]
        assert plugin.call("remember", "key", {"token": "hunter2", "n": 1}) is None
        assert plugin.call("remember", "key", {"token": "hunter2", "n": 2})["n"] == 1
        host.load(workshop.write(name="other", exports=["echo"]))
        assert plugin.call("nested", ["passed", "on"]) == ["passed", "on"]
        host.publish("user_action", "click")
        plugin.call("echo", b"\0\xff")
        host.publish("user_action", "break")
        host.unload("sample")
    return file


def play(workshop: Workshop, file: Path, directory: Path, **options: Any) -> Replayed:
    return replay(
        read_recording(file),
        read_bundle(directory),
        SERVICES,
        workshop.config(grants=GRANTS),
        ReplayOptions(**{"ignore": ("at",)} | options),
    )


def test_the_same_version_does_the_same(workshop: Workshop, recorded: Path) -> None:
    recording = read_recording(recorded)
    assert [step.name for step in recording.steps] == [
        "predict",
        "fails",
        "count",
        "total",
        "price",
        "price",
        "remember",
        "remember",
        "nested",
        "user_action",
        "echo",
        "user_action",
    ]
    replayed = play(workshop, recorded, version(workshop))
    assert (replayed.found, replayed.skipped) == ([], [])
    assert replayed.compared == len(recording.steps)


def test_what_is_redacted_is_nowhere_in_the_file(recorded: Path) -> None:
    data = recorded.read_bytes()
    assert b"hunter2" not in data
    assert b"[redacted]" in data
    assert stat.S_IMODE(recorded.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("changed", "first"),
    [
        ({"FIRST": "21.0"}, "predict #1: result.rows[0].temperature: 22.5 != 23.0"),
        ({"ERROR": "TypeError"}, "fails #2: outcome: raises ValueError != raises TypeError"),
        ({"STEP": "2"}, "count #3: item[1].number: 1 != 2"),
    ],
    ids=["result", "error", "item"],
)
def test_the_first_difference_is_named(
    workshop: Workshop, recorded: Path, changed: dict[str, str], first: str
) -> None:
    replayed = play(workshop, recorded, version(workshop, 2, **changed))
    assert [str(one) for one in replayed.found] == [first]


def test_all_differences(workshop: Workshop, recorded: Path) -> None:
    other = version(
        workshop,
        2,
        FIRST="20.5 + 1e-12",
        extra="""
@operation
def count(until):
    yield {"number": 0}

@operation
def price(symbol):
    return context().ask("prices", symbol.lower())

@operation
def echo(value):
    os._exit(3)
""",
    )
    replayed = play(workshop, recorded, other, every=True, tolerance=1e-9)
    told = [str(one) for one in replayed.found]
    asks = "service: nothing != asks for prices as it was not asked for before"
    returns = "outcome: returns != raises plugin_sdk.errors.ServiceError"
    assert told[:5] == [
        "count #3: item[1]: an object of 1 != nothing",
        f"price #5: {asks}",
        f"price #5: {returns}",
        f"price #6: {asks}",
        f"price #6: {returns}",
    ]
    assert told[5].startswith("echo #11: outcome: returns != sample")
    assert len(told) == 6  # it has ended


def test_events_that_are_published_are_compared(workshop: Workshop) -> None:
    file = workshop.root / "events.recording"
    publish = '\n@operation\ndef tell(): context().publish("model_updated", {"n": [1, N]})\n'
    with opened(workshop) as host:
        plugin = host.load(version(workshop, N="2", extra=publish), record=file)
        plugin.call("tell")
    other = version(workshop, 2, N="3", extra=publish)
    replayed = play(workshop, file, other)
    first = "tell #1: published[0].model_updated.n[1]: 2 != 3"
    assert [str(one) for one in replayed.found] == [first]


def test_what_was_cancelled_is_not_compared(workshop: Workshop) -> None:
    file = workshop.root / "cancelled.recording"
    with opened(workshop) as host:
        plugin = host.load(version(workshop), record=file)
        with plugin.stream("count", 10_000) as stream:
            next(stream)
        plugin.call("echo", 1)
    replayed = play(workshop, file, version(workshop))
    assert [one.why for one in replayed.skipped] == ["it was cancelled, or too late"]
    assert (replayed.compared, replayed.found) == (1, [])


async def recorded_by_asyncio(workshop: Workshop, directory: Path) -> None:
    async with SandboxHost(workshop.config(grants=GRANTS)) as host:
        host.offer("prices", Prices().latest)
        plugin = await host.load(version(workshop), record=directory)
        assert await plugin.call("echo", [1]) == [1]


def test_a_directory_gets_a_file_and_no_file_is_replaced(workshop: Workshop) -> None:
    directory = workshop.root / "recordings"
    directory.mkdir()
    asyncio.run(recorded_by_asyncio(workshop, directory))
    file = directory / "sample.recording"
    assert len(read_recording(file).steps) == 1
    before = file.read_bytes()
    with opened(workshop) as host:
        with pytest.raises(RecordingError, match="File exists"):
            host.load(version(workshop), record=file)
        assert host.plugins == {}
    assert file.read_bytes() == before


def test_a_plugin_that_does_not_start_leaves_a_recording(workshop: Workshop) -> None:
    file = workshop.root / "start.recording"
    with BlockingHost(workshop.config()) as host, pytest.raises(Exception, match="did not start"):
        host.load(workshop.write("raise ValueError"), record=file)
    assert read_recording(file).steps == []


def test_nothing_to_compare_is_no_success(workshop: Workshop) -> None:
    file = workshop.root / "empty.recording"
    with opened(workshop) as host:
        host.load(version(workshop), record=file)
    with pytest.raises(RecordingError, match="no call or event"):
        play(workshop, file, version(workshop))
    other = workshop.write(name="other")
    with pytest.raises(UsageError, match="is of sample, not of other"):
        play(workshop, file, other)


def test_the_size_limit(workshop: Workshop) -> None:
    file = workshop.root / "large.recording"
    with opened(workshop) as host:
        options = RecordingOptions(file, max_bytes=64 * 1024)
        plugin = host.load(version(workshop), record=options)
        for _ in range(3):
            plugin.call("echo", bytes(20_000))
        host.unload("sample")
        assert plugin.recording_problem == "it has reached its size limit"
    assert file.stat().st_size <= 64 * 1024
    recording = read_recording(file)
    assert (recording.stopped, len(recording.steps)) == ("full", 2)
    replayed = play(workshop, file, version(workshop))
    assert (replayed.compared, replayed.found) == (1, [])


# -- the commands ------------------------------------------------------------------------------


@pytest.fixture
def cli(
    workshop: Workshop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> LocalCommandLine:
    return LocalCommandLine(workshop.root, capsys, monkeypatch)


def test_the_commands(workshop: Workshop, cli: LocalCommandLine) -> None:
    old = workshop.write("@operation\ndef add(a, *, secret): return {'\\x1b[2J': a + 1}")
    new = workshop.write("@operation\ndef add(a, *, secret): return {'\\x1b[2J': a + 2}")
    trusted = ("--trust-store", workshop.trust_store)
    recording = ("--record", "one.recording", "--redact", "secret")
    assert cli("call", old, "add", 1, "--kw", 'secret="x"', *recording, *trusted).code == 0
    same = cli("replay", "one.recording", old)
    assert (same.code, same.out) == (0, "the same: 1 step\n")
    ran = cli("replay", "one.recording", new)
    assert (ran.code, ran.out) == (1, 'add #1: result."\\u001b[2J": 2 != 3\n')
    ran = cli("replay", "one.recording", new, "--format", "json", "--tolerance", "1")
    told = json.loads(ran.out)
    assert (ran.code, told["same"], told["compared"]) == (0, True, 1)
    assert told["recorded"]["redacted"] == ["secret"]
    assert cli("replay", "one.recording", new, "--tolerance", "-1").code == 2
    assert cli("replay", old / "plugin.json", new).code == 6
    ran = cli("call", old, "add", 1, "--redact", "x", *trusted)
    assert (ran.code, "--record" in ran.err) == (2, True)


def test_run_records(workshop: Workshop, cli: LocalCommandLine) -> None:
    one, two = (workshop.write(name=name) for name in ("one", "two"))
    trusted = ("--once", "--trust-store", workshop.trust_store)
    ran = cli("run", one, two, "--record", "both.recording", *trusted)
    assert (ran.code, "Name a directory" in ran.err) == (2, True)
    (workshop.root / "recordings").mkdir()
    assert cli("run", one, two, "--record", "recordings", *trusted).code == 0
    for name in ("one", "two"):
        file = workshop.root / "recordings" / f"{name}.recording"
        recording: Recording = read_recording(file)
        assert recording.about.plugin == name


def test_a_new_version_rehearses_before_it_serves(workshop: Workshop, recorded: Path) -> None:
    rehearsal = Rehearsal(recorded, ignore=("at",))
    with opened(workshop) as host:
        plugin = host.load(version(workshop))
        with pytest.raises(ReloadError, match="does not do what was recorded: predict #1") as told:
            host.reload("sample", version(workshop, 2, FIRST="20.75"), rehearsal=rehearsal)
        assert "the one before serves on" in told.value.message
        assert (plugin.version, plugin.state) == ("1.0.0", State.READY)
        # What it put into the store, and asked of the application, it did elsewhere.
        assert plugin.call("remember", "key", 1) is None
        assert plugin.call("price", "ABC") == 101.0
        host.reload("sample", version(workshop, 3), rehearsal=rehearsal)
        assert plugin.version == "3.0.0"
        with pytest.raises(RecordingError):
            host.reload("sample", rehearsal=Rehearsal(workshop.root / "none"))
        assert plugin.version == "3.0.0"


@pytest.mark.parametrize("tolerance", [-1.0, float("inf"), float("nan")])
def test_a_tolerance_is_a_number_from_0_on(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance"):
        Rehearsal("file", tolerance)


def test_an_instance_rehearses_as_what_it_is(workshop: Workshop) -> None:
    """With its own configuration, and no more than its own limits."""
    source = """
        @operation
        def city():
            return context().config["city"]
    """
    schema = {"type": "object", "properties": {"city": {"type": "string"}}}
    tenant = Instance("tenant", {"city": "Bonn"}, {"memory": "96 MiB"})
    more = "@operation\ndef city():\n    return bytearray(256 << 20) and 'Bonn'\n"
    greedy = workshop.write(more, version="2.0.0", config_schema=schema)
    file = workshop.root / "tenant.recording"
    with opened(workshop) as host:
        plain = workshop.write(source, config_schema=schema)
        assert host.load(plain, instance=tenant, record=file).call("city") == "Bonn"
        host.unload("sample@tenant")
        plugin = host.load(plain, instance=tenant)
        with pytest.raises(ReloadError, match=r"not do what was recorded: .*memory"):
            host.reload(plugin.name, greedy, rehearsal=Rehearsal(file))
        host.reload(plugin.name, rehearsal=Rehearsal(file))
        assert plugin.call("city") == "Bonn"


def test_nobody_is_told_of_a_crash_in_a_rehearsal(workshop: Workshop, tmp_path: Path) -> None:
    """It has the name of the plugin that serves on, and would never be told to be over."""
    told, recording = tmp_path / "told", tmp_path / "recording"
    alerts = {"command": ["/bin/sh", "-c", f"cat >> '{told}'"]}
    with BlockingHost(workshop.config(alerts=alerts)) as host:
        assert host.load(workshop.write(), record=recording).call("echo", 1) == 1
        host.unload("sample")
        plugin = host.load(workshop.write())
        crashes = workshop.write("@operation\ndef echo(value):\n    os._exit(3)\n")
        with pytest.raises(ReloadError, match=r"not do what was recorded: .*exit status 3"):
            host.reload("sample", crashes, rehearsal=Rehearsal(recording))
        assert plugin.call("echo", 2) == 2
    assert not told.exists()
