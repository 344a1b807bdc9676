from __future__ import annotations

import base64
import datetime as dt
import hashlib
import os
from pathlib import Path

import pytest

from sandbox_host.bundle.trust import MAX_STORE_BYTES, StoreMark, TrustStore, check_store_version
from sandbox_host.errors import TrustStoreError
from tests.support.bundles import make_key, store_text

KEY = make_key()
GOOD = store_text(KEY, patterns=["weather_*", "sample"])
ID = "a" * 64
NEUTRAL = (1).to_bytes(32, "little")
WEAK = base64.b64encode(NEUTRAL).decode()


def parse(text: str) -> TrustStore:
    return TrustStore.parse(text.encode(), "trust.toml")


def test_an_entry_is_read() -> None:
    store = parse(
        store_text(
            KEY,
            lines="not_before = 2026-01-01T00:00:00Z\nnot_after = 2027-01-01T00:00:00+02:00",
        )
        + f'[[revoked]]\nbundle = "{"a" * 64}"\nreason = "it stole"\ndate = 2026-01-02\n'
        "[policy]\nthreshold = 1\n"
    )
    key = store.keys[KEY.key_id]
    assert key.public == KEY.public
    assert key.label == "test key"
    assert key.roles == ("publisher",)
    assert key.not_before == dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
    assert key.not_after == dt.datetime(2026, 12, 31, 22, tzinfo=dt.UTC)
    assert store.revoked["a" * 64].reason == "it stole"
    assert store.revoked["a" * 64].date == dt.date(2026, 1, 2)


@pytest.mark.parametrize(
    ("identity", "covered"),
    [
        ("weather_model", True),
        ("weather_", True),
        ("sample", True),
        ("samples", False),
        ("my_weather_model", False),
        ("", False),
    ],
)
def test_scope(identity: str, covered: bool) -> None:
    assert parse(GOOD).keys[KEY.key_id].covers(identity) is covered


def test_an_empty_store_trusts_nobody() -> None:
    assert not parse("").keys


def test_several_keys() -> None:
    assert set(parse(store_text(make_key(1), make_key(2))).keys) == {
        make_key(1).key_id,
        make_key(2).key_id,
    }


def _weak(public: bytes) -> str:
    return GOOD.replace(KEY.key_id, hashlib.sha256(public).hexdigest()).replace(
        base64.b64encode(KEY.public).decode(), base64.b64encode(public).decode()
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD + "colour = 'red'\n", "key[0].colour: Extra inputs"),
        ("[[keys]]\n", "keys: Extra inputs"),
        (GOOD.replace("not_", "not_") + "not_afer = 2026-01-01T00:00:00Z\n", "key[0].not_afer"),
        (GOOD.replace(KEY.key_id, "0" * 64), "key[0].id: expected " + KEY.key_id),
        (GOOD.replace(KEY.key_id, KEY.key_id.upper()), "key[0].id"),
        (GOOD.replace('public = "', 'public = "!'), "key[0].public: not base64"),
        (GOOD.replace('="\nlabel', '"\nlabel'), "key[0].public: not base64"),
        (_weak(NEUTRAL), "small order"),
        (_weak(bytes(31)), "31 bytes"),
        (_weak((2).to_bytes(32, "little")), "not a point"),
        (_weak((2**255 - 18).to_bytes(32, "little")), "small order"),
        (GOOD + GOOD, "key[1]: the key " + KEY.key_id + " appears twice"),
        (GOOD.replace('label = "test key"', 'label = ""'), "key[0].label"),
        (GOOD.replace("test key", "two\\nlines"), "key[0].label: Value error, must be printable"),
        (GOOD.replace("test key", "\\u202e"), "key[0].label"),
        (GOOD.replace('label = "test key"', "label = 7"), "key[0].label"),
        (GOOD.replace('["publisher"]', '["admin"]'), "key[0].roles[0]"),
        (GOOD.replace('["publisher"]', "[]"), "key[0].roles"),
        (GOOD.replace('"weather_*"', '"Weather"'), "key[0].plugins[0]"),
        (GOOD.replace('"weather_*"', '"[a-z]"'), "key[0].plugins[0]"),
        (store_text(KEY, patterns=[]), "key[0].plugins"),
        (store_text(KEY, lines="not_after = 2026-01-01T00:00:00"), "time zone"),
        (store_text(KEY, lines="not_after = 0001-01-01T00:00:00+14:00"), "year 1"),
        (store_text(KEY, lines="not_before = 9999-12-31T23:59:59-14:00"), "year 1"),
        (store_text(KEY, lines="not_after = 2026-01-01"), "key[0].not_after"),
        (store_text(KEY, lines='not_after = "2026-01-01T00:00:00Z"'), "key[0].not_after"),
        (
            store_text(
                KEY, lines="not_before = 2026-01-01T00:00:00Z\nnot_after = 2026-01-01T00:00:00Z"
            ),
            "key[0].not_after: it is not after not_before",
        ),
        ("[policy]\nthreshold = 17\n", "policy.threshold"),
        ("[policy]\nthreshold = 0\n", "policy.threshold"),
        ('[[threshold]]\nplugins = ["a"]\ncount = 0\n', "threshold[0].count"),
        ('[[threshold]]\nplugins = ["a"]\ncount = 17\n', "threshold[0].count"),
        ('[[threshold]]\nplugins = ["A"]\ncount = 2\n', "threshold[0].plugins[0]"),
        ("[[threshold]]\nplugins = []\ncount = 2\n", "threshold[0].plugins"),
        ("[[threshold]]\ncount = 2\n", "threshold[0].plugins"),
        ('[[threshold]]\nplugins = ["a"]\ncount = 2\nkeys = []\n', "threshold[0].keys"),
        ("version = -1\n", "version"),
        ("version = 9007199254740993\n", "version"),
        ('version = "1"\n', "version"),
        ("version = true\n", "version"),
        ('[root]\npublic = "AAAA"\n', "root.public: the key has 3 bytes"),
        (f'[root]\npublic = "{WEAK}"\n', "root.public: the key is a point of small order"),
        ("[root]\n", "root.public"),
        ("[policy]\nthreshold = true\n", "policy.threshold"),
        ("[policy]\nthresold = 1\n", "policy.thresold"),
        ('[[revoked]]\nreason = "x"\ndate = 2026-01-01\n', "exactly one of key and bundle"),
        (
            f'[[revoked]]\nkey = "{ID}"\nbundle = "{ID}"\nreason = "x"\ndate = 2026-01-01\n',
            "exactly one of key and bundle",
        ),
        (f'[[revoked]]\nkey = "{"a" * 64}"\ndate = 2026-01-01\n', "revoked[0].reason"),
        (f'[[revoked]]\nkey = "{"a" * 64}"\nreason = "x"\n', "revoked[0].date"),
        (f'[[revoked]]\nkey = "{"a" * 63}"\nreason = "x"\ndate = 2026-01-01\n', "revoked[0].key"),
        ("not toml", "not TOML"),
        ('key = "text"', "key: "),
        ("x = " + "[" * 50_000, "nested too deeply"),
        ("#" * (MAX_STORE_BYTES + 1), "larger than"),
    ],
)
def test_what_is_misspelt_weak_or_contradictory_is_refused(text: str, words: str) -> None:
    assert parse(GOOD).keys
    with pytest.raises(TrustStoreError) as caught:
        parse(text)
    assert words in caught.value.message
    assert caught.value.message.isprintable()
    assert caught.value.remedy


def test_a_store_that_says_nothing_of_them_has_the_least() -> None:
    store = parse(GOOD)
    assert (store.version, store.threshold, store.thresholds) == (0, 1, ())
    assert store.next_root is None
    assert store.threshold_for("anything") == 1
    assert store.mark == StoreMark(0, hashlib.sha256(GOOD.encode()).hexdigest(), "")


def test_the_greatest_threshold_that_applies_counts() -> None:
    store = parse(
        'version = 7\n[policy]\nthreshold = 2\n[[threshold]]\nplugins = ["pay_*", "bank"]\n'
        'count = 3\n[[threshold]]\nplugins = ["pay_slow"]\ncount = 4\n'
        '[[threshold]]\nplugins = ["*"]\ncount = 1\n'
    )
    asked = {name: store.threshold_for(name) for name in ("pay_x", "bank", "pay_slow", "other")}
    assert asked == {"pay_x": 3, "bank": 3, "pay_slow": 4, "other": 2}
    assert store.version == store.mark.version == 7


# -- an older store ----------------------------------------------------------------------------


def store_at(version: int, more: str = "", root: str = "") -> TrustStore:
    return TrustStore.parse(f"version = {version}\n{more}".encode(), "trust.toml", root)


@pytest.mark.parametrize(
    ("before", "now"),
    [
        pytest.param(None, store_at(0), id="first"),
        pytest.param(store_at(3), store_at(3), id="the same"),
        pytest.param(store_at(3), store_at(4), id="newer"),
        pytest.param(store_at(3), store_at(3, "# by hand"), id="edited by hand"),
        pytest.param(store_at(3), store_at(3, root="a"), id="a root pinned since"),
        pytest.param(store_at(3, root="a"), store_at(4, root="b"), id="the root exchanged"),
    ],
)
def test_stores_that_may_follow(before: TrustStore | None, now: TrustStore) -> None:
    assert check_store_version(now, before.mark if before else None) == now.mark


@pytest.mark.parametrize(
    ("before", "now", "words"),
    [
        pytest.param(store_at(3), store_at(2), "has version 2, and version 3", id="older"),
        pytest.param(store_at(1), TrustStore.parse(b""), "has version 0", id="no version"),
        pytest.param(
            store_at(3, root="aa"), store_at(2, root="aa"), "has version 2", id="older, signed"
        ),
        pytest.param(
            store_at(3, root="aa"), store_at(4), "not held to its root, the key aa", id="no root"
        ),
        pytest.param(
            store_at(3, root="aa"),
            store_at(3, "# other", root="aa"),
            "the same version, 3",
            id="one number signed twice",
        ),
    ],
)
def test_stores_that_may_not(before: TrustStore, now: TrustStore, words: str) -> None:
    with pytest.raises(TrustStoreError) as caught:
        check_store_version(now, before.mark)
    assert words in caught.value.message
    assert caught.value.remedy


def test_bytes_that_are_not_utf8() -> None:
    with pytest.raises(TrustStoreError, match="not TOML in UTF-8"):
        TrustStore.parse(b"\xff\xfe")


# -- the file ---------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    directory = tmp_path / "trust"
    directory.mkdir(mode=0o700)
    file = directory / "trust.toml"
    file.write_text(GOOD)
    file.chmod(0o600)
    return file


def refused(path: Path) -> str:
    with pytest.raises(TrustStoreError) as caught:
        TrustStore.load(path)
    return str(caught.value)


@pytest.mark.parametrize("mode", [0o600, 0o644, 0o400])
def test_a_protected_file_is_read(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert KEY.key_id in TrustStore.load(path).keys


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666, 0o664])
def test_a_file_that_others_may_write(path: Path, mode: int) -> None:
    path.chmod(mode)
    assert f"writable for its group or for others (mode {mode:04o})" in refused(path)
    assert "chmod go-w" in refused(path)


@pytest.mark.parametrize("mode", [0o770, 0o707, 0o777, 0o1777])
def test_a_directory_that_others_may_write(path: Path, mode: int) -> None:
    path.parent.chmod(mode)
    assert "the directory of the trust store" in refused(path)


def test_a_symbolic_link(path: Path) -> None:
    link = path.parent / "link.toml"
    link.symlink_to(path)
    assert "symbolic link" in refused(link)


def test_a_missing_file_or_directory(path: Path) -> None:
    assert "does not exist" in refused(path.parent / "other.toml")
    assert "does not exist" in refused(path.parent / "nowhere" / "trust.toml")


def test_not_a_regular_file(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)
    assert "not a regular file" in refused(path)
    path.unlink()
    path.mkdir()
    assert "not a regular file" in refused(path)


def test_a_file_that_is_too_large(path: Path) -> None:
    with path.open("ab") as file:
        file.truncate(1 << 40)
    assert "larger than" in refused(path)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_foreign_owner(path: Path) -> None:
    os.chown(path, 12345, -1)
    assert "belongs to user 12345" in refused(path)
    os.chown(path, 0, -1)
    assert TrustStore.load(path)
    os.chown(path.parent, 12345, -1)
    assert "belongs to user 12345" in refused(path)
