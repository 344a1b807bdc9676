"""Releases that what was admitted before speaks against, and a history that is not as it was."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import pytest

from sandbox_host import Downgrade
from sandbox_host.bundle.contents import Contents
from sandbox_host.bundle.reader import stamp
from sandbox_host.bundle.signature import PrivateKey
from sandbox_host.bundle.trust import TrustStore
from sandbox_host.bundle.verify import verify
from sandbox_host.errors import (
    ClockError,
    EquivocationError,
    HeldError,
    HistoryError,
    RollbackError,
    TrustStoreError,
)
from sandbox_host.runtime.admissions import Admissions
from sandbox_host.runtime.history_store import HistoryStore
from tests.support.bundles import signed_contents, store_text
from tests.support.forgeries import KEY, OTHER_KEY, signed_by
from tests.support.tampering import FILES, Bench, Case, Tamper, bench_in, both, named, with_trust

pytestmark = [pytest.mark.timeout(60), pytest.mark.needs("landlock", "seccomp")]

ASKS: Final = {
    "permissions": {"publish": ["a_*"], "env": ["ONE"]},
    "limits": {"memory": "64 MiB"},
    "dependencies": ["other_plugin >= 1.0"],
}
GRANTS: Final = {"sample": {"env": ["ONE", "TWO"], "native_code": True, "threads": True}}
TRUST: Final = "version = 7\n" + store_text(KEY)
DEVELOPER: Final = store_text(OTHER_KEY).replace('"publisher"', '"developer"')


def signed(version: str, more: str = "", key: PrivateKey = KEY, **asks: Any) -> Contents:
    """Return a release; `more` makes other files of it, `asks` replace `ASKS`."""
    files = {**FILES, "notes.txt": more}
    return signed_contents(key, files, version=version, **{**ASKS, **asks})


def release(version: str, more: str = "", key: PrivateKey = KEY, **asks: Any) -> Tamper:
    def do(bench: Bench) -> None:
        bench.put(signed(version, more, key, **asks))

    return do


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bench]:
    """A host that has admitted 1.1.0, with a trust store of version 7."""
    root = tmp_path_factory.mktemp("a bench")
    with bench_in(root, TRUST + DEVELOPER, signed("1.1.0"), grants=GRANTS) as made:
        assert made.answer_of(made.plugin) == "signed"
        made.remember()
        yield made


def damaged(change: Callable[[bytes], bytes]) -> Tamper:
    def do(bench: Bench) -> None:
        data = bench.history.read_bytes()
        bench.history.write_bytes(change(data))
        assert bench.history.read_bytes() != data

    return do


def resummed(old: bytes, new: bytes) -> Tamper:
    """Edit the history, and make its last line right: what its form refuses all the same."""

    def change(data: bytes) -> bytes:
        body = data[: data.rstrip(b"\n").rindex(b"\n") + 1].replace(old, new)
        return body + b'{"sha256":"%s"}\n' % hashlib.sha256(body).hexdigest().encode()

    return damaged(change)


def without_line(index: int) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        lines = data.splitlines(keepends=True)
        del lines[index]
        return b"".join(lines)

    return change


def plugin_twice(data: bytes) -> bytes:
    lines = data.splitlines(keepends=True)
    return b"".join([lines[0], lines[1], lines[1], lines[2]])


def replaced(make: Callable[[Path], object]) -> Tamper:
    def do(bench: Bench) -> None:
        bench.history.unlink()
        make(bench.history)

    return do


def _link(bench: Bench) -> None:
    real = bench.history.rename(bench.scene / "history")
    bench.history.symlink_to(real)


def _sparse(bench: Bench) -> None:
    with bench.history.open("ab") as file:
        file.truncate(1 << 40)


def _foreign(bench: Bench) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    os.chown(bench.history, 12_345, -1)


def clock_seen(ahead: timedelta) -> Tamper:
    """Have the host remember a moment that is so far ahead of this machine's clock."""

    def do(bench: Bench) -> None:
        with HistoryStore(bench.config.state_dir).change() as draft:
            draft.history = replace(draft.history, latest=datetime.now(UTC) + ahead)

    return do


def _rooted_before(bench: Bench) -> None:
    with HistoryStore(bench.config.state_dir).change() as draft:
        marks = {path: replace(one, root="ab" * 32) for path, one in draft.history.stores.items()}
        draft.history = replace(draft.history, stores=marks)


def _approved_another(bench: Bench) -> None:
    with HistoryStore(bench.config.state_dir).change() as draft:
        record = replace(draft.history.plugins["sample"], approval="ab" * 32)
        draft.history = draft.history.with_plugin("sample", record)
    release("1.2.0", permissions={"env": ["TWO"]})(bench)


def _publisher_taken_off(bench: Bench) -> None:
    """An old release that both had signed, of which a developer's signature is left."""
    bench.put(signed_by(signed_by(signed("1.0.0"), KEY, OTHER_KEY), OTHER_KEY))


RELEASES: Final = [
    Case("older", release("1.0.0"), RollbackError, "1.0.0 is older than 1.1.0"),
    Case("much older", release("0.0.1"), RollbackError, "is older than 1.1.0"),
    Case("older by text only", release("1.1.0rc1"), RollbackError, "is older than 1.1.0"),
    Case("a development release", release("1.1.0.dev3"), RollbackError, "is older than"),
    Case("older, as Semantic Versioning", release("1.1.0-alpha.beta"), RollbackError, "older"),
    Case("older, of a developer", release("1.0.0", key=OTHER_KEY), RollbackError, "is older"),
    Case("the publisher taken off", _publisher_taken_off, RollbackError, "is older than 1.1.0"),
    Case("other files", release("1.1.0", "x"), EquivocationError, "one version with two contents"),
    Case("the same, spelt otherwise", release("1.1"), EquivocationError, "two contents"),
    Case("spelt with a v", release("v1.1.0"), EquivocationError, "two contents"),
    Case("with zeros", release("1.1.0.0"), EquivocationError, "two contents"),
    Case("other files, a developer", release("1.1.0", "x", OTHER_KEY), EquivocationError, "two"),
    Case(
        "fewer permissions, same version",
        release("1.1.0", permissions={}),
        EquivocationError,
        "two",
    ),
]

UPDATES: Final = [
    Case(
        "another variable",
        release("1.2.0", permissions={"env": ["ONE", "TWO"]}),
        HeldError,
        "permissions.env: TWO (before: -)",
    ),
    Case("more events", release("1.2.0", permissions={"publish": ["*"]}), HeldError, "publish"),
    Case("native code", release("1.2.0", permissions={"native_code": True}), HeldError, "native"),
    Case("threads", release("1.2.0", permissions={"threads": True}), HeldError, "threads"),
    Case(
        "more memory",
        release("1.2.0", limits={"memory": "65 MiB"}),
        HeldError,
        "limits.memory: 65 MiB (before: 64 MiB)",
    ),
    Case("no limit any more", release("1.2.0", limits={}), HeldError, "limits.memory"),
    Case(
        "another dependency",
        release("1.2.0", dependencies=["other_plugin >= 1.0", "third"]),
        HeldError,
        "dependencies: third",
    ),
    Case(
        "a developer's",
        release("1.2.0", key=OTHER_KEY, permissions={"env": ["TWO"]}),
        HeldError,
        "TWO",
    ),
    Case("approved for another", _approved_another, HeldError, "is held"),
]

AROUND: Final = [
    Case("a clock set back", clock_seen(timedelta(hours=2)), ClockError, "this host has seen"),
    Case("by minutes", clock_seen(timedelta(minutes=6)), ClockError, "has seen"),
    Case(
        "a trust store put back",
        with_trust("version = 6\n" + store_text(KEY)),
        TrustStoreError,
        "has version 6, and version 7 was seen before",
    ),
    Case("one without a version", with_trust(store_text(KEY)), TrustStoreError, "has version 0"),
    Case("one without its root", _rooted_before, TrustStoreError, "is not held to its root"),
]

# A host that was open when it went away refuses; who only asks takes it for none.
REMOVED = Case("removed", replaced(lambda _: None), HistoryError, "is missing")
NOT_AS_WRITTEN, DAMAGED = "is not as the host wrote it", HistoryError

FILE: Final = [
    Case("emptied", damaged(lambda _: b""), DAMAGED, NOT_AS_WRITTEN),
    Case("cut", damaged(lambda data: data[:-3]), DAMAGED, "its last line is not the digest"),
    Case("its last line gone", damaged(without_line(-1)), DAMAGED, "its last line is not"),
    Case("a plugin gone", damaged(without_line(1)), DAMAGED, "its last line is not the digest"),
    Case("the host's line gone", damaged(without_line(0)), DAMAGED, NOT_AS_WRITTEN),
    Case("a plugin twice", damaged(plugin_twice), DAMAGED, "its last line is not the digest"),
    Case(
        "an older version written",
        damaged(lambda data: data.replace(b'"version":"1.1.0"', b'"version":"1.0.0"')),
        DAMAGED,
        "its last line is not the digest",
    ),
    Case("longer", damaged(lambda data: data + b"\n"), DAMAGED, NOT_AS_WRITTEN),
    Case("text", damaged(lambda _: b"nothing\n"), DAMAGED, NOT_AS_WRITTEN),
    Case("deep", damaged(lambda _: b"[" * 100_000), DAMAGED, NOT_AS_WRITTEN),
    Case("a terabyte", _sparse, DAMAGED, "expected at most 16777216 bytes"),
    Case("another schema", resummed(b'"schema":1', b'"schema":2'), DAMAGED, "host.schema"),
    Case("an unknown key", resummed(b'"config"', b'"x":1,"config"'), DAMAGED, "host"),
    Case("no version", resummed(b'"1.1.0"', b'"newest"'), DAMAGED, "highest.version"),
    Case("another's name", resummed(b'"sample"', b'"../sample"'), DAMAGED, "plugin"),
    Case("a link", _link, DAMAGED, "cannot be opened"),
    REMOVED,
    Case("a FIFO", replaced(os.mkfifo), DAMAGED, "is no regular file"),
    Case("a directory", replaced(lambda p: p.mkdir()), DAMAGED, "is no regular file"),
    Case(
        "others may write", lambda b: b.history.chmod(0o666), DAMAGED, "by its group or by others"
    ),
    Case("its group may write", lambda b: b.history.chmod(0o660), DAMAGED, "by its group or by"),
    Case("a foreign owner", _foreign, DAMAGED, "of the host's own user"),
]

CONTROLS: Final = [
    Case("the same again", both()),
    Case(
        "the same files, signed anew", lambda b: b.put(signed_by(b.good, KEY, OTHER_KEY)) and None
    ),
    Case("newer", release("1.1.1")),
    Case("newer by text only", release("1.10.0")),
    Case("a newer pre-release", release("1.2.0rc1")),
    Case("a newer one of a developer", release("1.2.0", key=OTHER_KEY)),
    Case("asking for less", release("1.2.0", permissions={}, limits={"memory": "32 MiB"})),
    Case("a clock that is corrected", clock_seen(timedelta(minutes=4))),
    Case("a newer trust store", with_trust("version = 8\n" + store_text(KEY))),
]

CASES = named([*RELEASES, *UPDATES, *AROUND, *FILE, *CONTROLS])
BY_VERIFY = [case for case in CASES if case.error is not HeldError and case.name != REMOVED.name]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_load(bench: Bench, case: Case) -> None:
    bench.check_by_host(case)


@pytest.mark.parametrize("case", BY_VERIFY, ids=str)
def test_verify(bench: Bench, case: Case) -> None:
    """The command asks what the host remembers, and changes nothing of it."""

    def tamper(bench: Bench) -> Path | None:
        place = case.tamper(bench)
        left.append(stamp(bench.history.lstat()))
        return place

    left: list[tuple[int, ...]] = []
    bench.check_by_verify(replace(case, tamper=tamper))
    assert left == [stamp(bench.history.lstat())]


@pytest.mark.parametrize("case", UPDATES, ids=str)
def test_verify_does_not_ask_for_approval(bench: Bench, case: Case) -> None:
    """What an update asks for is the operator's concern, not that of who signs it."""
    bench.check_by_verify(replace(case, error=None))


# -- the operator's word --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "passes"),
    [
        pytest.param(Downgrade("sample", "1.0.0", "r"), True, id="for this"),
        pytest.param(Downgrade("sample", "1.0", "r"), True, id="spelt otherwise"),
        pytest.param(Downgrade("sample", "1.0.1", "r"), False, id="for another version"),
        pytest.param(Downgrade("sample_2", "1.0.0", "r"), False, id="for another plugin"),
    ],
)
def test_a_downgrade(bench: Bench, word: Downgrade, passes: bool) -> None:
    bench.reset()
    release("1.0.0")(bench)
    if passes:
        assert bench.answer_of(bench.plugin, word) == "signed"
        assert bench.answer_of(bench.plugin) == "signed"  # until anything else is admitted
        release("1.0.0", "other files")(bench)
        assert "is older" in bench.refusal_of(bench.plugin, RollbackError)
    else:
        assert "is older" in bench.refusal_of(bench.plugin, RollbackError, word)


def test_a_newer_one_that_comes_in_between(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two hosts with one state directory: what is admitted is judged once more when it is."""
    real = Admissions.check

    def check(self: Admissions, bundle: Any, trust: TrustStore, now: datetime, *more: Any) -> None:
        real(self, bundle, trust, now, *more)
        newer = verify(signed("1.3.0"), trust, now)
        Admissions.admit(self, newer, trust, now)

    bench.reset()
    release("1.2.0")(bench)
    assert bench.answer_of(bench.plugin) == "signed"
    bench.reset()
    release("1.2.0")(bench)
    monkeypatch.setattr(Admissions, "check", check)
    assert "1.2.0 is older than 1.3.0" in bench.refusal_of(bench.plugin, RollbackError)
