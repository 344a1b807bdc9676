"""Which wall an exception stands for, in process: what only the sandbox refuses is made up here."""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from plugin_sdk.child import explain as explain_module
from plugin_sdk.child.callsite import sites_of, writes
from plugin_sdk.child.explain import covered, explain, note_of
from plugin_sdk.child.faults import Faults
from plugin_sdk.child.loader import LoadOrder
from plugin_sdk.errors import PermissionDenied
from tests.support.child_session import order_for

HERE = str(Path(__file__).parent)


@pytest.fixture
def order(tmp_path: Path) -> LoadOrder:
    return order_with(tmp_path)


def order_with(tmp_path: Path, **granted: Any) -> LoadOrder:
    package = tmp_path / "bundle" / "sample"
    data = tmp_path / "data"
    return order_for(package, data_dir=str(data), scratch_dir=str(data), granted=granted)


def raised(function: Callable[..., object]) -> BaseException:
    try:
        function()
    except BaseException as error:  # noqa: BLE001
        return error
    pytest.fail("nothing was raised")


def found(function: Callable[..., object], order: LoadOrder) -> tuple[str, str] | None:
    answer = explain(raised(function), order)
    return None if answer is None else (answer[0]["rule"], answer[0]["asked"])


def refuse(number: int, *names: str) -> Callable[..., Any]:
    """Return a function that fails as the kernel would have it."""

    def refused(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), *(n for name in names for n in (name, None)))

    return refused


# -- files -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.ENOENT])
def test_a_path_outside_of_the_plugins_places(number: int, order: LoadOrder) -> None:
    assert found(refuse(number, "/srv/data"), order) == ("read", "/srv/data")


def test_what_is_read_only_was_to_be_written(order: LoadOrder) -> None:
    assert found(refuse(errno.EROFS, "/srv/data"), order) == ("write", "/srv/data")


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EISDIR, errno.EEXIST, errno.EIO])
def test_other_errors_are_no_refusals(number: int, order: LoadOrder) -> None:
    assert found(refuse(number, "/srv/data"), order) is None


def test_a_path_of_its_own_that_is_not_there(order: LoadOrder) -> None:
    assert found(refuse(errno.ENOENT, f"{order.data_dir}/x"), order) is None
    assert found(refuse(errno.ENOENT, f"{order.package_dir}/x"), order) is None
    assert found(refuse(errno.ENOENT, os.__file__ + "x"), order) is None


def test_its_own_files_cannot_be_changed(order: LoadOrder) -> None:
    path = f"{order.package_dir}/main.py"
    assert found(refuse(errno.EROFS, path), order) == ("bundle", path)


def test_a_granted_path_that_is_not_there(tmp_path: Path) -> None:
    order = order_with(tmp_path, read=["/srv"])
    assert found(refuse(errno.ENOENT, "/srv/x"), order) is None
    assert found(refuse(errno.EACCES, "/srv/x"), order) == ("read", "/srv/x")
    assert found(refuse(errno.EROFS, "/srv/x"), order) == ("write", "/srv/x")


@pytest.mark.parametrize(
    ("place", "path", "inside"),
    [
        ("/srv", "/srv", True),
        ("/srv", "/srv/x", True),
        ("/srv/", "/srv/x", True),
        ("/srv", "/srvx", False),
        ("/", "/x", True),
    ],
)
def test_covered(place: str, path: str, inside: bool) -> None:
    assert covered((place,), path) is inside


NOWHERE = "/nonexistent-of-tests/x"


@pytest.mark.parametrize(
    ("attempt", "writing"),
    [
        (lambda: open(NOWHERE), False),  # noqa: SIM115 - there is nothing to close
        (lambda: open(NOWHERE, "rb"), False),  # noqa: SIM115
        (lambda: open(NOWHERE, "w"), True),  # noqa: SIM115
        (lambda: open(NOWHERE, mode="ab"), True),  # noqa: SIM115
        (lambda: open(file=NOWHERE, encoding="utf-8"), False),  # noqa: SIM115
        (lambda: open(NOWHERE, "r+b"), True),  # noqa: SIM115
        (lambda: os.open(NOWHERE, os.O_RDONLY), False),
        (lambda: os.open(NOWHERE, os.O_WRONLY), True),
        (lambda: os.open(NOWHERE, os.O_RDWR | os.O_CREAT), True),
        (lambda: Path(NOWHERE).read_text(), False),
        (lambda: Path(NOWHERE).write_text("x"), True),
        (lambda: Path(NOWHERE).open("w"), True),  # noqa: SIM115
        (lambda: os.listdir(NOWHERE), False),
        (lambda: os.mkdir(NOWHERE), True),
        (lambda: os.rename(NOWHERE, NOWHERE), True),
        (lambda: os.stat(NOWHERE), False),
    ],
    ids=range(16),
)
def test_reading_is_told_from_writing(attempt: Callable[[], object], writing: bool) -> None:
    assert writes(sites_of(raised(attempt))[-1]) is writing


def test_the_call_is_found_over_several_lines() -> None:
    def attempt() -> None:
        open(  # noqa: SIM115
            NOWHERE,
            mode="x",
        )

    site = sites_of(raised(attempt))[-1]
    assert (site.called, site.function) == ("open", "attempt")
    assert writes(site)


def test_without_source_nothing_is_known() -> None:
    code = compile("open('/nonexistent-of-tests/x', 'w')", "<nowhere>", "exec")
    site = sites_of(raised(lambda: exec(code, {})))[-1]
    assert (site.called, site.words(), writes(site)) == ("", ([], ""), False)


def test_the_outermost_directory_was_asked_for(order: LoadOrder) -> None:
    path = "/nonexistent-of-tests/a/b/c"
    error = FileNotFoundError(errno.ENOENT, "none", "/nonexistent-of-tests")

    def mkdir(*_: object) -> None:
        raise error

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "mkdir", mkdir)
        assert found(lambda: os.makedirs(path), order) == ("read", path)


# -- the rest --------------------------------------------------------------------------------------


def test_a_variable(tmp_path: Path) -> None:
    name = "A_VARIABLE_THAT_NOBODY_SETS"
    assert found(lambda: os.environ[name], order_with(tmp_path)) == ("env", name)
    assert found(lambda: {}[name], order_with(tmp_path)) is None  # type: ignore[var-annotated]


def test_a_thread(tmp_path: Path) -> None:
    def start() -> None:
        raise RuntimeError("can't start new thread")

    assert found(start, order_with(tmp_path)) == ("threads", "")
    assert found(start, order_with(tmp_path, threads=True)) is None


def test_a_shared_object(order: LoadOrder) -> None:
    def load() -> None:
        raise OSError("/data/x.so: failed to map segment from shared object")

    assert found(load, order) == ("native_code", "/data/x.so")


def test_what_the_sdk_refuses(order: LoadOrder) -> None:
    def publish() -> None:
        raise PermissionDenied.of("publish", "some_event", "it may not")

    assert found(publish, order) == ("publish", "some_event")
    assert found(refuse(errno.EPERM), order) is None


def test_a_process(order: LoadOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fork", refuse(errno.EPERM))

    def attempt() -> None:
        os.fork()

    error = raised(attempt)
    assert error.__traceback__ is not None
    assert error.__traceback__.tb_next is not None
    error.__traceback__.tb_next.tb_next = None  # the kernel has no frame
    answer = explain(error, order)
    assert answer is not None
    assert answer[0] == {"rule": "subprocess", "asked": ""}


def test_a_connection(order: LoadOrder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket.socket, "connect", refuse(errno.EPERM))

    def attempt() -> None:
        socket.create_connection(("127.0.0.1", 9))

    error = raised(attempt)
    step = error.__traceback__
    while step is not None and step.tb_next is not None and step.tb_next.tb_next is not None:
        step = step.tb_next
    assert step is not None
    step.tb_next = None
    answer = explain(error, order)
    assert answer is not None
    assert answer[0] == {"rule": "network", "asked": "127.0.0.1:9"}


def test_the_chain_is_followed_and_ends(order: LoadOrder) -> None:
    first, second = ValueError("first"), OSError(errno.EACCES, "no", "/srv/data")
    first.__cause__, second.__cause__ = second, first
    answer = explain(first, order)
    assert answer == ({"rule": "read", "asked": "/srv/data"}, second)
    second.errno = errno.ENOSPC
    assert explain(first, order) is None


def test_what_was_asked_for_is_bounded(order: LoadOrder) -> None:
    answer = explain(raised(refuse(errno.EACCES, "/\ud800" + "ü" * 5_000)), order)
    assert answer is not None
    assert len(answer[0]["asked"].encode()) <= explain_module.MAX_ASKED_BYTES


# -- in the exception ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "asked", "note"),
    [
        (
            "env",
            'a "b"',
            'denied by the sandbox; in plugin.json: "permissions": {"env": ["a \\"b\\""]}',
        ),
        (
            "network",
            "",
            'denied by the sandbox; in plugin.json: "permissions": {"network": ["<host>:<port>"]}',
        ),
        ("threads", "", 'denied by the sandbox; in plugin.json: "permissions": {"threads": true}'),
        ("read", "/srv/x", "denied by what is outside of the sandbox: read is granted for this."),
        ("never", "listening", "denied by the sandbox (listening), and no permission opens that."),
        (
            "bundle",
            "/x",
            "denied by the sandbox: the plugin's own files; write to context().data_dir.",
        ),
    ],
)
def test_the_note(rule: str, asked: str, note: str, tmp_path: Path) -> None:
    order = order_with(tmp_path, read=["/srv"])
    assert note_of({"rule": rule, "asked": asked}, order) == note


def test_an_exception_gets_its_note_once(order: LoadOrder) -> None:
    error = raised(refuse(errno.EACCES, "/srv/data"))
    for _ in range(3):
        _, told = Faults(HERE, order).describe(error)
        assert told["denied"]["rule"] == "read"
        assert told["denied"]["where"].endswith("in refused")
        assert told["traceback"].count("denied by the sandbox") == 1
    assert "denied" not in Faults(HERE).describe(error)[1]
    assert "denied" not in Faults(HERE, order).describe(ValueError())[1]


class HostileError(OSError):
    @property
    def filename(self) -> str:  # type: ignore[override]
        raise SystemExit

    def add_note(self, note: str) -> None:
        raise SystemExit


def test_a_hostile_exception_stays_unexplained(order: LoadOrder) -> None:
    def fail() -> None:
        raise HostileError(errno.EACCES, "no", "/srv/data")

    _, told = Faults(HERE, order).describe(raised(fail))
    assert "denied" not in told
    assert told["type"].endswith("HostileError")
