"""Where dossiers are kept: so many, complete ones only; nothing that stands there is believed."""

from __future__ import annotations

import errno
import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from sandbox_host.config import HostConfig
from sandbox_host.errors import DossierError
from sandbox_host.observe import dossiers
from sandbox_host.observe.dossier_files import FILES, LOG, SUMMARY
from sandbox_host.observe.dossier_ids import ended_at, is_dossier_id
from sandbox_host.observe.dossiers import DossierStore
from tests.support.dossier_examples import ENDED_AT, example

FIRST = "20260131T120000-hog-4711"
NOW = datetime(2026, 2, 1, tzinfo=UTC)


@pytest.fixture
def store(tmp_path: Path) -> DossierStore:
    return DossierStore(tmp_path / "dossiers", max_bytes=256 * 1024, kept=5)


def later(hours: int, **changed: object):
    return example(ended_at=ENDED_AT + 3_600 * hours, **changed)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.lstat().st_mode)


def test_what_is_written_is_read_back(store: DossierStore) -> None:
    assert store.ids() == ()
    assert store.write(example()) == FIRST
    assert store.ids() == (FIRST,)
    assert store.read(FIRST) == example()
    assert store.path(FIRST) == store.directory / FIRST
    assert ended_at(FIRST) == datetime(2026, 1, 31, 12, tzinfo=UTC)


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777], ids=oct)
def test_nobody_else_may_read_it(store: DossierStore, umask: int) -> None:
    store.directory.mkdir(mode=0o755)
    before = os.umask(umask)
    try:
        store.write(example())
    finally:
        os.umask(before)
    assert mode(store.directory) == mode(store.path(FIRST)) == 0o700
    assert {name: mode(store.path(FIRST) / name) for name in os.listdir(store.path(FIRST))} == (
        dict.fromkeys(FILES, 0o600)
    )


def test_the_newest_comes_first_and_names_are_taken_once(store: DossierStore) -> None:
    written = [store.write(later(hour)) for hour in (2, 0, 1)]
    twins = [store.write(later(1, text=f"twin {n}")) for n in (2, 3)]
    assert twins == [f"{written[2]}-2", f"{written[2]}-3"]
    assert store.ids() == (written[0], twins[1], twins[0], written[2], written[1])
    assert [store.read(name).text for name in twins] == ["twin 2", "twin 3"]


def test_the_oldest_are_removed(store: DossierStore) -> None:
    written = [store.write(later(hour)) for hour in range(8)]
    assert store.ids() == tuple(reversed(written[3:]))
    assert sorted(os.listdir(store.directory)) == sorted(written[3:])


def test_an_old_one_that_cannot_be_removed_does_not_make_it_more(store: DossierStore) -> None:
    written = [store.write(later(hour)) for hour in range(5)]
    (store.path(written[0]) / "mine").mkdir()
    newest = store.write(later(9))
    assert store.ids() == (newest, *reversed(written[2:]), written[0])


def test_the_only_one_that_is_kept_is_the_newest(store: DossierStore) -> None:
    one = DossierStore(store.directory, max_bytes=256 * 1024, kept=1)
    for hour in (1, 2, 3):
        newest = one.write(later(hour))
        assert one.ids() == (newest,)


def test_it_is_cut_to_its_size(store: DossierStore) -> None:
    small = DossierStore(store.directory, max_bytes=96 * 1024, kept=5)
    small.write(example(log=("x" * 1_900,) * 200, stacks="y\n" * 60_000))
    sizes = [path.stat().st_size for path in small.path(FIRST).iterdir()]
    assert 80 * 1024 < sum(sizes) <= 96 * 1024
    assert small.read(FIRST).log[-1] == "x" * 1_900


def test_a_hosts_own_store(tmp_path: Path) -> None:
    store = DossierStore.of(HostConfig(state_dir=tmp_path, dossiers_kept=2))
    assert store.directory == tmp_path / "dossiers"
    for hour in range(3):
        store.write(later(hour))
    assert len(store.ids()) == 2


@pytest.mark.parametrize("plugin", ["Weather Model", "../../etc", "", "x" * 99, "ü\x1b"])
def test_whatever_the_plugin_is_called_the_name_is_a_plain_one(
    store: DossierStore, plugin: str
) -> None:
    name = store.write(example(plugin=plugin))
    assert is_dossier_id(name)
    assert os.listdir(store.directory) == [name]
    assert store.ids() == (name,)


@pytest.mark.parametrize("seconds", [0.0, -62_135_596_800.0, 1e12, float("inf")])
def test_whatever_the_clock_says_the_name_is_a_plain_one(
    store: DossierStore, seconds: float
) -> None:
    name = store.write(example(ended_at=seconds))
    assert store.ids() == (name,)
    assert store.read(name).cause == example().cause


def test_removing(store: DossierStore) -> None:
    other = store.write(later(1))
    store.write(example())
    store.remove(FIRST)
    assert store.ids() == (other,)
    assert os.listdir(store.directory) == [other]
    with pytest.raises(DossierError, match=f"There is no dossier {FIRST}"):
        store.remove(FIRST)


@pytest.mark.parametrize(
    "name",
    ["", ".", "..", "../x", "latest", f"{FIRST}/", f"/{FIRST}", f"{FIRST}\n", f"{FIRST}\0",
     "20260131T120000-../x-1", "20261331T120000-hog-1", "00000101T000000-hog-1", "\x1b[2J"],
)  # fmt: skip
def test_what_is_no_id(store: DossierStore, name: str) -> None:
    store.write(example())
    assert not is_dossier_id(name)
    for use in (store.read, store.remove):
        with pytest.raises(DossierError, match="is no id of a dossier") as caught:
            use(name)
        assert "\x1b" not in str(caught.value)
    if not name.startswith("2026") or "-" not in name:
        with pytest.raises(DossierError):
            ended_at(name)
    assert store.ids() == (FIRST,)


def test_without_a_directory_there_is_none(store: DossierStore) -> None:
    for use in (store.read, store.remove):
        with pytest.raises(DossierError, match="There is no dossier"):
            use(FIRST)
    assert not store.directory.exists()


# -- what can stand there ----------------------------------------------------------------------


def test_only_directories_of_the_right_name_are_listed(store: DossierStore, tmp_path: Path) -> None:
    store.write(example())
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (store.directory / "20260131T130000-link-1").symlink_to(elsewhere)
    (store.directory / "20260131T130000-file-1").write_text("x")
    os.mkfifo(store.directory / "20260131T130000-fifo-1")
    (store.directory / "notes").mkdir()
    (store.directory / ".writing-0123").mkdir()
    assert store.ids() == (FIRST,)
    for name in ("20260131T130000-link-1", "20260131T130000-file-1", "20260131T130000-fifo-1"):
        for use in (store.read, store.remove):
            with pytest.raises(DossierError, match="There is no dossier"):
                use(name)
    assert elsewhere.exists()
    assert len(os.listdir(store.directory)) == 6


def put_link(path: Path) -> None:
    target = path.parents[2] / "secret"
    target.write_text("secret\n")
    path.symlink_to(target)


def put_fifo(path: Path) -> None:
    os.mkfifo(path)


def put_directory(path: Path) -> None:
    path.mkdir()


def put_too_much(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(2**40)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("put", [put_link, put_fifo, put_directory, put_too_much, Path.touch])
def test_what_stands_in_place_of_a_file_is_refused(store: DossierStore, name, put) -> None:
    store.write(example())
    path = store.path(FIRST) / name
    path.unlink()
    put(path)
    if put is Path.touch and name in {LOG, "stacks.txt"}:
        assert store.read(FIRST).cause == example().cause  # it printed nothing, and stood nowhere
        return
    with pytest.raises(DossierError, match=f"is not as the host wrote it: .*{name}"):
        store.read(FIRST)


def test_a_summary_looks_at_nothing_else(store: DossierStore) -> None:
    store.write(example())
    for name in set(FILES) - {SUMMARY}:
        (store.path(FIRST) / name).unlink()
    assert store.summary(FIRST) == example(curve=(), frames=(), log=(), stacks="")
    with pytest.raises(DossierError):
        store.read(FIRST)
    (store.path(FIRST) / SUMMARY).write_text("{}")
    with pytest.raises(DossierError, match=r"is not as the host wrote it: summary\.json: format"):
        store.summary(FIRST)


def test_half_of_it_is_refused(store: DossierStore) -> None:
    store.write(example())
    (store.path(FIRST) / SUMMARY).unlink()
    with pytest.raises(DossierError, match=r"summary.json cannot be read: No such file"):
        store.read(FIRST)
    store.remove(FIRST)
    assert store.ids() == ()


def test_links_in_it_are_removed_and_not_followed(store: DossierStore, tmp_path: Path) -> None:
    store.write(example())
    target = tmp_path / "target"
    target.write_text("mine")
    (store.path(FIRST) / "link").symlink_to(target)
    os.link(target, store.path(FIRST) / "second-name")
    store.remove(FIRST)
    assert target.read_text() == "mine"
    assert os.listdir(store.directory) == []


def test_a_directory_in_it_is_somebody_elses(store: DossierStore) -> None:
    store.write(example())
    (store.path(FIRST) / "mine").mkdir()
    with pytest.raises(DossierError, match='holds a directory, "mine"'):
        store.remove(FIRST)
    assert store.read(FIRST) == example()


def test_a_link_in_place_of_the_store(store: DossierStore, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    store.directory.symlink_to(elsewhere)
    with pytest.raises(DossierError, match="cannot be written"):
        store.write(example())
    with pytest.raises(DossierError, match="cannot be used"):
        store.ids()
    assert os.listdir(elsewhere) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root makes somebody else's directory")
def test_somebody_elses_store_is_not_written(store: DossierStore) -> None:
    store.directory.mkdir()
    os.chown(store.directory, 65_534, 65_534)
    with pytest.raises(DossierError, match="belongs to somebody else"):
        store.write(example())


# -- when it goes wrong ------------------------------------------------------------------------


@pytest.mark.parametrize("name", FILES)
def test_a_full_disk(store: DossierStore, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    store.write(example())

    def full(file: str, *arguments: object, **keywords: object) -> int:
        if file == name:
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(file, *arguments, **keywords)

    opened = os.open
    monkeypatch.setattr(dossiers.os, "open", full)
    with pytest.raises(DossierError, match=r"cannot be written in .*: No space left on device"):
        store.write(later(1))
    monkeypatch.undo()
    assert os.listdir(store.directory) == [FIRST]


def test_a_state_directory_that_is_gone(tmp_path: Path) -> None:
    store = DossierStore(tmp_path / "gone" / "dossiers", max_bytes=256 * 1024, kept=5)
    with pytest.raises(DossierError, match="No such file or directory"):
        store.write(example())


def test_what_was_begun_and_never_finished_is_removed_later(store: DossierStore) -> None:
    store.write(example())
    now = datetime.now(UTC)
    for name in (".writing-0123", ".removing-4567"):
        (store.directory / name).mkdir()
        (store.directory / name / LOG).write_text("half a line")
    soon = DossierStore(store.directory, max_bytes=256 * 1024, kept=5, clock=lambda: now)
    second = soon.write(later(1))
    assert {".writing-0123", ".removing-4567"} < set(os.listdir(store.directory))
    much_later = DossierStore(
        store.directory, max_bytes=256 * 1024, kept=5, clock=lambda: now + timedelta(hours=1)
    )
    third = much_later.write(later(2))
    assert set(os.listdir(store.directory)) == {FIRST, second, third}


def test_what_is_left_of_a_removal_gives_its_name_back(store: DossierStore) -> None:
    store.directory.mkdir()
    store.path(FIRST).mkdir()
    assert store.write(example()) == FIRST


def test_several_hosts_write_at_once(tmp_path: Path) -> None:
    written: list[str] = []

    def write() -> None:
        store = DossierStore(tmp_path / "dossiers", max_bytes=256 * 1024, kept=100)
        for _ in range(10):
            written.append(store.write(example()))  # noqa: PERF401 - the others write meanwhile

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    store = DossierStore(tmp_path / "dossiers", max_bytes=256 * 1024, kept=100)
    assert len(set(written)) == 40
    assert set(store.ids()) == set(written)
    assert all(store.read(name) == example() for name in written)


def test_descriptors_are_given_back(store: DossierStore) -> None:
    before = len(os.listdir("/proc/self/fd"))
    for hour in range(7):
        store.write(later(hour))
    (store.path(store.ids()[0]) / SUMMARY).unlink()
    with pytest.raises(DossierError):
        store.read(store.ids()[0])
    store.remove(store.ids()[0])
    assert len(os.listdir("/proc/self/fd")) == before
