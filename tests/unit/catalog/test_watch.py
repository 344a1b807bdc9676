"""The watch: a real directory, a clock of the test's, and a judge that needs no key."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sandbox_host.catalog.discover as discovery
import sandbox_host.catalog.watch as room
from sandbox_host.catalog.roster import Change, ChangeKind, Judged
from sandbox_host.catalog.watch import Pace, PluginWatch
from sandbox_host.errors import TrustStoreError
from tests.support.sealed_plugins import SealJudge, digest_of, seal, write


class Bench:
    """A plugin directory that is watched, with a clock that stands still."""

    def __init__(self, root: Path) -> None:
        self.directory = root / "plugins"
        self.directory.mkdir()
        self.now = 1_000.0
        self.spent = 0.0
        self.judge = SealJudge()
        self.watch = PluginWatch(
            self.directory,
            self.judge,
            pace=Pace(quiet=0.5, scan=1.0),
            notices=False,
            clock=lambda: self.now,
            cost=lambda: self.spent,
        )

    def after(self, seconds: float) -> list[tuple[str, str]]:
        """Let so much time pass, in looks of a tick each, and return what was told."""
        told: list[Change] = []
        until = self.now + seconds
        while self.now < until:
            self.now += 0.25
            told += self.watch.step()
        return shown(told)


def shown(changes: list[Change] | tuple[Change, ...]) -> list[tuple[str, str]]:
    return [(str(one.kind), one.identity or one.path.name) for one in changes]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_what_is_there_at_the_start_is_told_at_once(bench: Bench) -> None:
    write(bench.directory / "a")
    (bench.directory / "half").mkdir()
    (bench.directory / "half/plugin.json").write_text("half")
    (bench.directory / "README.md").write_text("")
    assert shown(bench.watch.look()) == [("added", "a"), ("refused", "half")]
    assert bench.watch.look() == ()
    assert set(bench.watch.present) == {"a"}


def test_added_changed_and_removed(bench: Bench) -> None:
    bench.watch.look()
    write(bench.directory / "a")
    assert bench.after(0.5) == []
    assert bench.after(2) == [("added", "a")]
    write(bench.directory / "a", "2")
    assert bench.after(3) == [("changed", "a")]
    shutil.rmtree(bench.directory / "a")
    assert bench.after(6) == [("removed", "a")]
    assert bench.after(5) == []


def test_a_copy_counts_when_it_is_complete(bench: Bench, tmp_path: Path) -> None:
    source = write(tmp_path / "a")
    bench.watch.look()
    target = bench.directory / "a"
    target.mkdir()
    told = []
    for number, name in enumerate(["plugin.json", "main.py", "plugin.dsse.json"]):
        shutil.copy(source / name, target / name)
        told += bench.after(0.25 if number else 1.5)
        (target / "more").write_text(str(number))
        told += bench.after(0.25)
    (target / "more").unlink()
    told += bench.after(4)
    assert told == [("refused", "a"), ("added", "a")]


def test_switched_on_and_off(bench: Bench) -> None:
    write(bench.directory / "a")
    bench.watch.look()
    bench.judge.switched_off, bench.judge.renewed = frozenset({"a"}), True
    assert bench.after(0.5) == [("disabled", "a")]
    bench.judge.switched_off, bench.judge.renewed = frozenset(), True
    assert bench.after(0.5) == [("enabled", "a")]


def test_one_that_changes_for_ever_is_told_and_never_judged(bench: Bench) -> None:
    write(bench.directory / "good")
    bench.watch.look()
    write(bench.directory / "loud")
    told = []
    for number in range(600):
        (bench.directory / "loud/main.py").write_text(str(number))
        told += bench.after(0.25)
        if number == 300:
            write(bench.directory / "other")
    assert told == [("restless", "loud"), ("added", "other")]
    assert "loud" not in bench.judge.asked
    seal(bench.directory / "loud")
    assert bench.after(60) == [("added", "loud")]


def test_one_that_cannot_be_judged_stops_no_other(
    bench: Bench, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = bench.judge.__call__

    class Faulty(SealJudge):
        def __call__(self, path: Path) -> Judged:
            if path.name == "a":
                raise ZeroDivisionError
            return real(path)

    bench.watch._judge = Faulty()
    write(bench.directory / "a")
    write(bench.directory / "b")
    assert shown(bench.watch.look()) == [("added", "b"), ("refused", "a")]
    assert "a cannot be judged" in caplog.text


def test_without_a_trust_store_nothing_is_lost(bench: Bench) -> None:
    write(bench.directory / "a")
    bench.watch.look()
    bench.judge.fault = TrustStoreError("it is gone.")
    write(bench.directory / "b")
    (change,) = [c for _ in range(8) for c in _stepped(bench)]
    assert (change.kind, change.reason, change.code) == (ChangeKind.WATCH, "it is gone.", "judging")
    assert set(bench.watch.present) == {"a"}
    bench.judge.fault = None
    changes = [c for _ in range(8) for c in _stepped(bench)]
    assert shown(changes) == [("watch", "plugins"), ("added", "b")]
    assert changes[0].reason == ""


def _stepped(bench: Bench) -> tuple[Change, ...]:
    bench.now += 0.5
    return bench.watch.step()


def test_a_directory_that_is_gone_for_a_while(bench: Bench) -> None:
    write(bench.directory / "a")
    bench.watch.look()
    aside = bench.directory.with_name("aside")
    bench.directory.rename(aside)
    assert bench.after(5) == [("watch", "plugins")]
    assert set(bench.watch.present) == {"a"}
    aside.rename(bench.directory)
    assert bench.after(5) == [("watch", "plugins")]
    write(bench.directory / "b")
    assert bench.after(3) == [("added", "b")]


def test_too_many_names(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    write(bench.directory / "a")
    bench.watch.look()
    monkeypatch.setattr(discovery, "MAX_ENTRIES", 2)
    for name in ("x", "y", "z"):
        (bench.directory / name).touch()
    told = [c for _ in range(4) for c in _stepped(bench)]
    assert shown(told) == [("watch", "plugins")]
    assert "more than 2 entries" in told[0].reason
    assert set(bench.watch.present) == {"a"}


def test_one_scan_looks_at_no_more_than_it_may(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "MAX_LOOKED_AT_ONCE", 12)
    for number in range(10):
        write(bench.directory / f"p{number}")
    bench.watch.look()
    assert len(bench.watch.present) == 3  # of four names each
    bench.after(20)
    assert len(bench.watch.present) == 10
    shutil.rmtree(bench.directory / "p5")
    assert bench.after(20) == [("removed", "p5")]


def test_what_costs_much_is_done_seldom(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    scans = []

    def costly(directory_fd: int, directory: Path) -> list[str]:
        scans.append(bench.now)
        bench.spent += 0.7
        return []

    monkeypatch.setattr(room, "names_in", costly)
    for _ in range(200):
        bench.now += 0.1
        bench.watch.step()
    assert len(scans) == 3  # in 20 seconds, of which a tenth may be spent


def test_a_step_that_judges_for_long_is_followed_by_another(bench: Bench) -> None:
    class Slow(SealJudge):
        def __call__(self, path: Path) -> Judged:
            bench.spent += 0.2
            return super().__call__(path)

    bench.watch._judge = slow = Slow()
    bench.watch.look()
    for number in range(5):
        write(bench.directory / f"p{number}")
    counts = []
    for _ in range(8):
        before = len(slow.asked)
        _stepped(bench)
        counts.append(len(slow.asked) - before)
    assert max(counts) == 2
    assert sum(counts) == 5


def test_the_pause_is_as_long_as_the_pace_says(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(
        bench.watch, "_wait", lambda until, _: waits.append(round(until - bench.now, 3))
    )
    bench.watch.look()
    bench.watch._pause()
    assert waits == [1.0, 0.1]  # until the next scan; and never sooner than a tick
    waits.clear()
    bench.watch.hurry()
    bench.watch._pause()
    assert waits == [0.1, 0.1]
    bench.now += 0.1
    write(bench.directory / "a")
    waits.clear()
    bench.watch.step()
    bench.watch._pause()
    assert waits[0] == 0.5  # when it may be at rest


def test_what_a_callback_raises_does_not_end_the_watch(tmp_path: Path) -> None:
    directory = tmp_path / "plugins"
    write(directory / "a")
    write(directory / "b")
    told = []

    def tell(change: Change) -> None:
        told.append(change.identity)
        if len(told) == 2:
            watch.close()
        raise ValueError(change.identity)

    watch = PluginWatch(directory, SealJudge(), notices=False)
    with watch:
        watch._run(tell)
    assert told == ["a", "b"]


# -- any sequence of what people do to a directory ------------------------------------------------

_NAMES = st.sampled_from(["a", "b", "c"])
_ACTS = st.lists(
    st.tuples(
        st.sampled_from(["copy", "half", "finish", "rename", "delete", "touch", "edit", "wait"]),
        _NAMES,
        _NAMES,
    ),
    max_size=24,
)


def _copy(there: Path, other: Path) -> None:
    write(there, os.urandom(4).hex())


def _half(there: Path, other: Path) -> None:
    write(there, os.urandom(4).hex())
    (there / "plugin.dsse.json").unlink()


def _finish(there: Path, other: Path) -> None:
    if there.is_dir():
        seal(there)


def _rename(there: Path, other: Path) -> None:
    if there.is_dir() and not other.exists():
        there.rename(other)


def _delete(there: Path, other: Path) -> None:
    shutil.rmtree(there, ignore_errors=True)


def _touch(there: Path, other: Path) -> None:
    if there.is_dir():
        os.utime(there / "main.py")


def _edit(there: Path, other: Path) -> None:
    if there.is_dir():
        (there / "main.py").write_text(os.urandom(4).hex())


_DO: dict[str, Callable[[Path, Path], None]] = {
    "copy": _copy,
    "half": _half,
    "finish": _finish,
    "rename": _rename,
    "delete": _delete,
    "touch": _touch,
    "edit": _edit,
}


@settings(max_examples=40, deadline=None)
@given(_ACTS)
def test_whatever_is_done(acts: list[tuple[str, str, str]]) -> None:
    with tempfile.TemporaryDirectory() as root:
        bench = Bench(Path(root))
        bench.watch.look()
        told: dict[str, str] = {}
        for kind, name, other in acts:
            if kind == "wait":
                bench.now += 0.7
            else:
                _DO[kind](bench.directory / name, bench.directory / other)
            bench.now += 0.2
            _replay(told, bench.watch.step())
        for _ in range(60):  # nobody does anything any more
            bench.now += 1.0
            _replay(told, bench.watch.step())
        sealed = _sealed(bench.directory)
        assert told == {identity: one.digest for identity, one in bench.watch.present.items()}
        for identity, digests in sealed.items():
            # What is whole is known; of two of one name, one of them or neither.
            assert told.get(identity) in (digests if len(digests) == 1 else {*digests, None})
        there = {path.name for path in bench.directory.iterdir()}
        assert {one.path.name for one in bench.watch.present.values()} <= there


def _replay(told: dict[str, str], changes: tuple[Change, ...]) -> None:
    for change in changes:
        if change.kind is ChangeKind.REMOVED:
            del told[change.identity]
        elif change.kind in {ChangeKind.ADDED, ChangeKind.CHANGED}:
            assert change.digest  # nothing is told that did not verify
            told[change.identity] = change.digest


def _sealed(directory: Path) -> dict[str, set[str]]:
    sealed: dict[str, set[str]] = {}
    for path in directory.iterdir():
        seal_file = path / "plugin.dsse.json"
        if seal_file.exists() and seal_file.read_text() == digest_of(path):
            sealed.setdefault((path / "plugin.json").read_text(), set()).add(digest_of(path))
    return sealed
