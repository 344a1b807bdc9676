from __future__ import annotations

import datetime as dt
import stat
import threading
from pathlib import Path

import pytest

from sandbox_host.bundle.trust import Revocation, Threshold, TrustStore
from sandbox_host.bundle.trust_edit import add_key, add_threshold, revoke
from sandbox_host.bundle.trust_root import pin_path
from sandbox_host.errors import TrustStoreError
from tests.support.bundles import NOW, make_key, store_text

TODAY = dt.date(2026, 1, 31)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "config" / "deep" / "trust.toml"


def test_the_first_key_makes_the_store(path: Path) -> None:
    key = make_key()
    added = add_key(
        path,
        key.public,
        'A "quoted" \\ läbel',
        plugins=["a_*", "b"],
        not_after=NOW,
        not_before=None,
    )
    assert TrustStore.load(path).keys == {key.key_id: added}
    assert added.label == 'A "quoted" \\ läbel'
    assert added.plugins == ("a_*", "b")
    assert added.not_after == NOW
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.parent.parent.stat().st_mode) == 0o700
    assert list(path.parent.iterdir()) == [path]


def test_the_operators_own_lines_stay(path: Path) -> None:
    path.parent.mkdir(parents=True)
    before = "# my note\n" + store_text(make_key(1)) + "[policy]\nthreshold = 1 # one"
    path.write_text(before)
    path.chmod(0o644)
    add_key(path, make_key(2).public, "two", plugins=["*"])
    revoke(path, Revocation(make_key(1).key_id, "key", "lost", TODAY))
    add_key(path, make_key(3).public, "three", plugins=["*"])
    store = TrustStore.load(path)
    assert path.read_text().startswith("version = 3\n" + before)
    assert set(store.keys) == {make_key(i).key_id for i in (1, 2, 3)}
    assert set(store.revoked) == {make_key(1).key_id}
    assert stat.S_IMODE(path.stat().st_mode) == 0o644


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("", "version = 1\n"),
        ("version = 7\n", "version = 8\n"),
        ("# a\n\n  # version = 3\nversion=41 # b\n", "# a\n\n  # version = 3\nversion = 42 # b\n"),
        ("version = 1_000\n", "version = 1001\n"),
        (
            "[policy]\nthreshold = 1\n# version = 5\n",
            "version = 1\n[policy]\nthreshold = 1\n# version = 5\n",
        ),
    ],
    ids=["none", "first line", "after comments", "underscores", "none but a table"],
)
def test_every_edit_counts(path: Path, before: str, after: str) -> None:
    path.parent.mkdir(parents=True)
    path.write_text(before)
    path.chmod(0o600)
    version = TrustStore.parse(before.encode()).version
    add_threshold(path, Threshold(("a_*",), 2))
    assert path.read_text() == after + '\n[[threshold]]\nplugins = ["a_*"]\ncount = 2\n'
    assert TrustStore.load(path).version == version + 1
    assert revoke(path, Revocation("a" * 64, "key", "x", TODAY)).version == version + 1
    assert TrustStore.load(path).version == version + 2


def test_a_counter_in_another_place_is_for_hands_only(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("policy.threshold = 1\nversion = 3\n")
    path.chmod(0o600)
    before = path.read_bytes()
    with pytest.raises(TrustStoreError, match="was not made"):
        add_threshold(path, Threshold(("a",), 2))
    assert path.read_bytes() == before


def test_a_threshold_is_added_and_the_values_are_checked(path: Path) -> None:
    assert add_threshold(path, Threshold(("a", "b_*"), 2)).threshold_for("b_1") == 2
    before = path.read_bytes()
    for wrong in (Threshold((), 2), Threshold(("A",), 2), Threshold(("a",), 17)):
        with pytest.raises(TrustStoreError, match="not be valid"):
            add_threshold(path, wrong)
    assert path.read_bytes() == before


def test_where_a_root_is_pinned_nothing_is_edited(path: Path) -> None:
    add_key(path, make_key().public, "one", plugins=["a"])
    before = path.read_bytes()
    pin_path(path).write_text("any")
    for edit in (
        lambda: add_key(path, make_key(2).public, "two", plugins=["a"]),
        lambda: revoke(path, Revocation("a" * 64, "key", "x", TODAY)),
        lambda: add_threshold(path, Threshold(("a",), 2)),
    ):
        with pytest.raises(TrustStoreError, match="belongs to a root key"):
            edit()
    assert path.read_bytes() == before


def test_a_known_key_is_not_added_twice(path: Path) -> None:
    add_key(path, make_key().public, "one", plugins=["a"])
    with pytest.raises(TrustStoreError, match="already, as 'one' for a"):
        add_key(path, make_key().public, "two", plugins=["b"])


def test_a_revoked_key_is_never_added_again(path: Path) -> None:
    revoke(path, Revocation(make_key().key_id, "key", "lost laptop", TODAY))
    with pytest.raises(TrustStoreError, match="revoked on 2026-01-31: 'lost laptop'"):
        add_key(path, make_key().public, "again", plugins=["*"])


def test_revoking_twice_is_harmless(path: Path) -> None:
    for kind in ("first", "second"):
        revoke(path, Revocation("b" * 64, "bundle", kind, TODAY))
    assert TrustStore.load(path).revoked["b" * 64].reason == "first"


@pytest.mark.parametrize(
    ("label", "plugins"),
    [
        ("two\nlines", ["*"]),
        ("\u202e", ["*"]),
        ("", ["*"]),
        ("x" * 201, ["*"]),
        ("ok", []),
        ("ok", ["Not Snake"]),
        ("ok", ['"]\n[[key]]']),
    ],
)
def test_values_that_the_store_would_refuse_are_not_written(
    path: Path, label: str, plugins: list[str]
) -> None:
    add_key(path, make_key(1).public, "fine", plugins=["*"])
    before = path.read_bytes()
    with pytest.raises(TrustStoreError):
        add_key(path, make_key(2).public, label, plugins=plugins)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_weak_key_is_not_added(path: Path) -> None:
    with pytest.raises(TrustStoreError, match="small order"):
        add_key(path, (1).to_bytes(32, "little"), "weak", plugins=["*"])
    assert not path.exists()


def test_a_digest_that_is_none_is_not_revoked(path: Path) -> None:
    with pytest.raises(TrustStoreError, match=r"revoked\[0\].key"):
        revoke(path, Revocation("abc", "key", "why", TODAY))
    assert not path.exists()


def test_a_broken_or_unprotected_store_is_left_alone(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("broken")
    path.chmod(0o600)
    with pytest.raises(TrustStoreError, match="not TOML"):
        add_key(path, make_key().public, "x", plugins=["*"])
    assert path.read_text() == "broken"
    path.write_text("")
    path.chmod(0o666)
    with pytest.raises(TrustStoreError, match="writable for its group or for others"):
        add_key(path, make_key().public, "x", plugins=["*"])
    assert path.read_text() == ""


def test_a_store_with_inline_tables_is_for_hands_only(path: Path) -> None:
    path.parent.mkdir(parents=True)
    path.write_text("key = []\n")
    path.chmod(0o600)
    with pytest.raises(TrustStoreError, match="by hand"):
        add_key(path, make_key().public, "x", plugins=["*"])


def test_edits_at_the_same_time_lose_nothing(path: Path) -> None:
    threads = [
        threading.Thread(
            target=add_key, args=(path, make_key(i).public, f"key {i}"), kwargs={"plugins": ["*"]}
        )
        for i in range(6)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(TrustStore.load(path).keys) == 6
