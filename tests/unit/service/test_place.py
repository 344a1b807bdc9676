"""One service for a state directory: the lock decides, whatever stands there as a socket."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from sandbox_host.errors import ControlError
from sandbox_host.service import place
from sandbox_host.service.place import ServicePlace, connect


@pytest.fixture
def state(tmp_path: Path) -> Path:
    # Far beyond what fits into a socket's address.
    directory = tmp_path / ("a long name " * 12).strip() / "state"
    directory.mkdir(mode=0o700, parents=True)
    return directory


def test_modes_and_what_is_left(state: Path) -> None:
    with ServicePlace(state) as where, where.listen():
        assert stat.S_IMODE((state / "service").stat().st_mode) == 0o700
        assert stat.S_IMODE((state / "service" / "control.sock").stat().st_mode) == 0o600
        connect(state).close()
    assert [path.name for path in (state / "service").iterdir()] == ["lock"]
    with pytest.raises(ControlError, match="No service runs"):
        connect(state)


def test_a_second_one_is_refused_with_who_has_it(state: Path) -> None:
    with ServicePlace(state), pytest.raises(ControlError, match=f"process {os.getpid()}"):
        ServicePlace(state).__enter__()
    with ServicePlace(state):
        pass


def test_a_socket_without_its_service_is_replaced(state: Path) -> None:
    with ServicePlace(state) as where, where.listen() as dead:
        dead.close()
        with pytest.raises(ControlError, match="No service runs"):
            connect(state)
        with where.listen():
            connect(state).close()


def test_where_there_never_was_one(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="sandbox-host run") as caught:
        connect(tmp_path / "nowhere")
    assert caught.value.code == "control"


def test_a_directory_that_others_may_enter_is_not_believed(state: Path) -> None:
    with ServicePlace(state) as where, where.listen():
        (state / "service").chmod(0o755)
        with pytest.raises(ControlError, match="open to others"):
            connect(state)
    (state / "service").chmod(0o777)
    with pytest.raises(ControlError, match="chmod go-w"):
        ServicePlace(state).__enter__()


def test_a_link_is_not_followed(state: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir(mode=0o700)
    (state / "service").symlink_to(tmp_path / "other")
    with pytest.raises(ControlError):
        ServicePlace(state).__enter__()
    with pytest.raises(ControlError):
        connect(state)


def test_without_proc_a_long_path_is_named(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(place.os.path, "isdir", lambda _: False)
    with ServicePlace(state) as where, pytest.raises(ControlError, match="at most 107 bytes"):
        where.listen()


def test_who_listens_has_to_be_the_owner(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with ServicePlace(state) as where, where.listen():
        stranger = place.peer_of
        monkeypatch.setattr(
            place, "peer_of", lambda c: type(stranger(c))(stranger(c).pid, os.geteuid() + 1)
        )
        with pytest.raises(ControlError, match="is not the service of the user"):
            connect(state)
