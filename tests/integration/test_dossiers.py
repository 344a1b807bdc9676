"""Dossiers, end to end: one of each cause as the documentation shows it, and who gets none."""

from __future__ import annotations

import json
import logging
import os
import signal
import unicodedata
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from sandbox_host import BlockingHost, BlockingPlugin, Limits, SandboxHost
from sandbox_host.cli import main
from sandbox_host.errors import PluginError, StartError
from sandbox_host.model import MIB, Cause
from sandbox_host.observe.curve import Point
from sandbox_host.observe.dossier import Dossier
from sandbox_host.observe.dossier_fit import STACKS_CUT
from sandbox_host.observe.dossiers import DossierStore
from sandbox_host.runtime import mortal
from tests.support import ordinary_user
from tests.support.dossier_causes import CAUSES, X32, produce
from tests.support.dossier_examples import example, examples, examples_in, normalized, shown
from tests.support.host import Load, Workshop
from tests.support.traces import eventually

needs = pytest.mark.needs("landlock", "seccomp")
PAGE = (Path(__file__).parents[2] / "docs" / "dossiers.md").read_text(encoding="utf-8")
DOCUMENTED = examples_in(PAGE)
PATIENCE_SECONDS = 20.0

CRASH = """
@operation
def crash(text="", end="\\n"):
    print(text, end=end, flush=True)
    ctypes.string_at(8)
"""


def ended(plugin: BlockingPlugin) -> None:
    assert plugin._process.ended.wait(PATIENCE_SECONDS)


def crashed(plugin: BlockingPlugin, *arguments: str) -> Path:
    """Have a plugin of `CRASH` crash, and return where its dossier is."""
    with pytest.raises(PluginError):
        plugin.call("crash", *arguments)
    ended(plugin)
    assert plugin.cause is Cause.CRASHED
    assert plugin.dossier is not None
    return plugin.dossier


def store(workshop: Workshop) -> DossierStore:
    return DossierStore.of(workshop.config())


# -- one of each cause -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def made_by_an_ordinary_user() -> Iterator[Future[str] | None]:
    """Begin: it waits for budgets to be exceeded, and so does `made`."""
    if ordinary_user.why_not():
        yield None
        return
    module = "tests.support.dossier_examples"
    with ordinary_user.readable_copy() as root, ThreadPoolExecutor(1) as pool:
        yield pool.submit(ordinary_user.run_module, module, root, timeout=170)


@pytest.fixture(scope="module")
def made(
    tmp_path_factory: pytest.TempPathFactory, made_by_an_ordinary_user: Future[str] | None
) -> dict[Cause, Dossier]:
    return produce(tmp_path_factory.mktemp("a place with spaces"))


def test_every_cause_that_leaves_one_has_an_example() -> None:
    without = {Cause.UNLOADED, Cause.HOST_SHUTDOWN}
    assert list(DOCUMENTED) == [str(cause) for cause in CAUSES]
    assert set(CAUSES) == set(Cause) - without


def skipped_where_there_is_none(cause: Cause) -> None:
    if cause is Cause.SYSCALL and not X32:
        pytest.skip("no system call that ends a process can be made here")


@needs
@pytest.mark.timeout(180)
@pytest.mark.parametrize("cause", CAUSES, ids=str)
def test_it_is_as_documented(made: dict[Cause, Dossier], cause: Cause) -> None:
    """`python -m tests.support.dossier_examples docs/dossiers.md` brings the page up to date."""
    skipped_where_there_is_none(cause)
    assert made[cause].cause is cause
    assert examples(made)[str(cause)] == DOCUMENTED[str(cause)]


@needs
@pytest.mark.timeout(180)
@pytest.mark.skipif(bool(ordinary_user.why_not()), reason=ordinary_user.why_not())
def test_an_ordinary_user_gets_the_same(made_by_an_ordinary_user: Future[str]) -> None:
    told = made_by_an_ordinary_user.result()
    expected = {cause: text for cause, text in DOCUMENTED.items() if X32 or cause != Cause.SYSCALL}
    assert examples_in(told) == expected


@needs
@pytest.mark.timeout(180)
def test_what_was_measured_is_above_what_was_allowed(made: dict[Cause, Dossier]) -> None:
    """The documentation has stand-ins for these."""
    budgets = {}
    for cause, dossier in made.items():
        assert dossier.ended_at > dossier.started_at
        assert dossier.usage.cpu_seconds > 0
        assert dossier.pid > 1
        if dossier.excess is not None:
            assert dossier.excess.used is not None
            assert dossier.excess.limit < dossier.excess.used < 30 * dossier.excess.limit
            budgets[cause] = dossier.excess.budget
    assert budgets == {
        Cause.MEMORY: "memory",
        Cause.CPU: "cpu",
        Cause.DEADLINE: "wall_time",
        Cause.CANCELLED: "grace",
        Cause.THREADS: "threads",
        Cause.DISK: "data",
        Cause.NETWORK: "network_bytes_per_minute",
    }
    assert made[Cause.MEMORY].usage.memory_peak_bytes > 64 * MIB
    assert made[Cause.CPU].usage.cpu_seconds > 1.0
    assert made[Cause.DEADLINE].usage.cpu_seconds < 1.0
    assert made[Cause.THREADS].usage.threads_peak > 8


# -- what the examples' stand-ins hide, and what not -------------------------------------------


def test_two_runs_of_the_same_read_the_same() -> None:
    one = example()
    other = replace(
        one, pid=815, root_digest="cd" * 32, started_at=1.7e9, ended_at=1.7e9 + 3.25,
        place="main.py:8 in grow", frozen=False, limits=one.limits[1:],
        text="hog exceeded its budget memory in grow: 64.1 MiB of 64 MiB.",
        curve=tuple(point for point in one.curve for _ in range(3)),
        stacks='Thread 0x2 (most recent call first):\n  File "main.py", line 9 in grow',
    )  # fmt: skip
    assert one.excess
    other = replace(other, excess=replace(one.excess, used=one.excess.limit + 1))
    assert shown(one) != shown(other)
    assert shown(normalized(one)) == shown(normalized(other))
    assert normalized(normalized(one)) == normalized(one)


FLAT = tuple(Point(n / 10, 0.01, 11 * MIB, 2, 9) for n in range(20))


@pytest.mark.parametrize(
    "changed",
    [
        {"operation": "shrink"},
        {"place": "main.py:7 in shrink"},
        {"text": "hog was ended."},
        {"cause": Cause.CRASHED},
        {"exit_signal": 11},
        {"curve": FLAT},
        {"log": ()},
        {"stacks": 'Thread 0x1 (most recent call first):\n  File "main.py", line 7 in shrink'},
        {"frames": example().frames[:-1]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_tells_something_stays(changed: dict[str, object]) -> None:
    assert shown(normalized(example(**changed))) != shown(normalized(example()))


# -- who gets one, and when --------------------------------------------------------------------


@needs
def test_who_ends_as_asked_gets_none(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config()) as host:
        load = workshop.loader(host)
        unloaded, closed = load(CRASH), load(CRASH, name="other")
        host.unload("sample")
        ended(unloaded)
    ended(closed)
    assert unloaded.dossier is None
    assert closed.dossier is None
    assert store(workshop).ids() == ()
    assert not store(workshop).directory.exists()


@needs
def test_it_is_there_when_the_end_is_told(
    workshop: Workshop, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    plugin = load(CRASH)
    assert plugin.dossier is None
    told_before = []
    write = DossierStore.write

    def watched(self: DossierStore, dossier: Dossier) -> str:
        told_before.append(plugin._process.ended.is_set())
        return write(self, dossier)

    monkeypatch.setattr(DossierStore, "write", watched)
    path = crashed(plugin)
    assert told_before == [False]
    assert path.parent == workshop.state_dir / "dossiers"
    dossier = store(workshop).read(path.name)
    assert (dossier.cause, dossier.pid) == (plugin.cause, plugin.receipt.pid)
    assert dossier.root_digest == plugin.plan.root_digest
    assert dossier.frames[0].size_bytes > 0


@needs
def test_the_hosts_log_tells_where_it_is(load: Load, caplog: pytest.LogCaptureFixture) -> None:
    path = crashed(load(CRASH))
    told = [record for record in caplog.records if str(path) in record.getMessage()]
    assert [(record.levelno, record.getMessage()) for record in told] == [
        (logging.WARNING, f"sample: its dossier is {path}")
    ]


@needs
def test_it_has_what_this_process_printed_and_nothing_else(workshop: Workshop, load: Load) -> None:
    """Not what another process of the plugin did, nor the stacks that the host adds to the log."""
    texts = []
    for text in ("first", "second"):
        path = crashed(load(CRASH), text)
        texts.append(store(workshop).read(path.name).log)
    assert texts == [("first",), ("second",)]
    log = (workshop.state_dir / "logs" / "sample.log").read_text(encoding="utf-8")
    assert log.count("Fatal Python error") == 2


@needs
def test_who_cannot_be_asked_any_more_has_one_all_the_same(workshop: Workshop, load: Load) -> None:
    """Killed while it works, before anybody looked: no stacks, no place, and the rest."""
    plugin = load()
    os.kill(plugin.receipt.pid, signal.SIGKILL)
    ended(plugin)
    assert plugin.dossier is not None
    dossier = store(workshop).read(plugin.dossier.name)
    assert (dossier.cause, dossier.exit_signal) == (Cause.KILLED, signal.SIGKILL)
    assert (dossier.place, dossier.stacks, dossier.log) == ("", "", ())


# -- bounds ------------------------------------------------------------------------------------

TOO_MUCH = """
import sys
sys.setrecursionlimit(5_000)
threading.stack_size(1 << 20)
LONG = "very_" * 80 + "long"
exec(f'''
def {LONG}(depth, deep):
    if depth:
        {LONG}(depth - 1, deep)
    deep.release()
    time.sleep(600)
''')

@operation
def overdo(lines):
    deep = threading.Semaphore(0)
    for _ in range(63):
        threading.Thread(target=globals()[LONG], args=(1_000, deep), daemon=True).start()
    for _ in range(63):
        deep.acquire()
    for number in range(lines):
        print("x" * 1_900, number)
    sys.stdout.flush()
    ctypes.string_at(8)
"""


@needs
@pytest.mark.parametrize("lines", [1_100, pytest.param(5_500, marks=pytest.mark.soak)])
def test_what_overdoes_it_has_one_within_its_bounds(workshop: Workshop, lines: int) -> None:
    most = 64 * MIB
    options = {"dossier_bytes": 96 * 1024, "ceilings": Limits(log_bytes_per_second=most)}
    with SandboxHost.blocking(workshop.config(**options)) as host:
        plugin = workshop.loader(host)(
            TOO_MUCH, limits={"log_bytes_per_second": most}, permissions={"threads": True}
        )
        with pytest.raises(PluginError):
            plugin.call("overdo", lines, deadline=50.0)
        ended(plugin)
        assert plugin.dossier is not None
        assert plugin.cause is Cause.CRASHED
        files = {path.name: path.stat().st_size for path in plugin.dossier.iterdir()}
        assert plugin.log_path.stat().st_size > 1_900 * lines
    assert 80 * 1024 < sum(files.values()) <= 96 * 1024
    assert min(files["log.txt"], files["stacks.txt"]) > 2_000
    dossier = store(workshop).read(plugin.dossier.name)
    assert dossier.stacks.endswith(STACKS_CUT)
    assert "very_very_" in dossier.stacks
    assert "earlier lines were cut" in dossier.log[0]
    assert dossier.log[-1].endswith(f"x {lines - 1}")


@needs
def test_so_many_are_kept_and_a_plugin_in_a_loop_pushes_out_its_own(workshop: Workshop) -> None:
    with SandboxHost.blocking(workshop.config(dossiers_kept=3)) as host:
        load = workshop.loader(host)
        once = crashed(load(CRASH, name="once"))
        again = [crashed(load(CRASH, name="looping")) for _ in range(5)]
    assert sorted(store(workshop).ids()) == sorted(path.name for path in (once, *again[-2:]))


# -- hostile text ------------------------------------------------------------------------------

EVIL = "\x1b[2J\x1b]0;x\x07\r\nfake: line\u202egnp\u2066\x00\x7f\x9b2J\u2028end"
HOSTILE = f"""
import types
EVIL = {EVIL!r}

def stays():
    print(EVIL, flush=True)
    sys.stderr.buffer.write(EVIL.encode() + bytes([255, 27, 10]))
    sys.stderr.flush()
    ctypes.string_at(8)

@operation
def crash():
    there = stays.__code__
    there = there.replace(co_name=EVIL, co_filename=there.co_filename + EVIL)
    types.FunctionType(there, globals())()

@operation
def write_everywhere():
    for descriptor in range(3, 64):
        for piece in (b"Current thread 0x1 (most recent call first):\\n", EVIL.encode() * 20):
            try:
                os.write(descriptor, piece)
            except OSError:
                pass
    time.sleep(600)

if context().config.get("evil"):
    raise RuntimeError(EVIL)
"""


def harmless(data: bytes) -> bool:
    """Tell whether nothing of it is a control, but a line's end, or changes the direction."""
    text = data.decode("utf-8").replace("\n", "")
    kinds = {unicodedata.category(c) for c in text} | {unicodedata.bidirectional(c) for c in text}
    return not kinds & {"Cc", "Cs", "Zl", "Zp", "RLO", "LRO", "RLI", "LRI", "FSI", "PDI", "PDF"}


def check_that_nothing_is_raw(workshop: Workshop, capsys: pytest.CaptureFixture[str]) -> str:
    """Look at every file of the only dossier, and at what commands show of it."""
    (name,) = store(workshop).ids()
    texts = [path.read_bytes() for path in sorted(store(workshop).path(name).iterdir())]
    for command in (["show"], ["show", "--format", "json"], ["list"], ["list", "--format", "json"]):
        capsys.readouterr()
        assert main(["dossier", *command, "--state-dir", str(workshop.state_dir)]) == 0
        texts.append(capsys.readouterr().out.encode())
    assert all(harmless(text) for text in texts)
    return b"".join(texts).decode()


@needs
@pytest.mark.parametrize(
    ("operation", "cause"),
    [("crash", Cause.CRASHED), ("write_everywhere", Cause.PROTOCOL_VIOLATION)],
)
def test_hostile_text_is_nowhere_raw(
    workshop: Workshop,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    cause: Cause,
) -> None:
    monkeypatch.setattr(mortal, "STACKS_SECONDS", PATIENCE_SECONDS)
    assert not harmless(EVIL.encode())
    with SandboxHost.blocking(workshop.config()) as host:
        plugin = workshop.loader(host)(HOSTILE)
        with pytest.raises(PluginError):
            plugin.call(operation)
        ended(plugin)
    assert plugin.cause is cause
    told = check_that_nothing_is_raw(workshop, capsys)
    dossier = store(workshop).read(store(workshop).ids()[0])
    assert "[2J" in dossier.stacks
    assert ("\\u202egnp" in "".join(dossier.log)) is (operation == "crash")
    assert "gnp" in told


@needs
def test_a_hostile_exception_at_its_start_is_nowhere_raw(
    workshop: Workshop, capsys: pytest.CaptureFixture[str]
) -> None:
    with SandboxHost.blocking(workshop.config()) as host, pytest.raises(StartError):
        workshop.loader(host)(HOSTILE, config={"evil": True})
    assert eventually(lambda: len(store(workshop).ids()) == 1)
    told = check_that_nothing_is_raw(workshop, capsys)
    assert "\\\\x1b[2J" in told
    assert json.loads((store(workshop).path(store(workshop).ids()[0]) / "summary.json").read_text())


# -- where none can be written -----------------------------------------------------------------


@needs
def test_without_a_place_for_it_the_plugin_ends_all_the_same(
    workshop: Workshop, host: BlockingHost, load: Load, caplog: pytest.LogCaptureFixture
) -> None:
    (workshop.state_dir / "dossiers").write_text("in the way")
    plugin = load(CRASH)
    with pytest.raises(PluginError):
        plugin.call("crash")
    ended(plugin)
    assert (plugin.cause, plugin.dossier) == (Cause.CRASHED, None)
    errors = [one.getMessage() for one in caplog.records if one.levelno >= logging.ERROR]
    (error,) = [one for one in errors if not one.startswith("alert: ")]
    assert error.startswith("sample: no dossier was written: The dossier of sample cannot be")
    assert "Make room on its disk" in error
    assert load(CRASH).call("echo", 1) == 1
    host.unload("sample")
    (workshop.state_dir / "dossiers").unlink()
    assert crashed(load(CRASH)).exists()
