"""The steps of the lock-down: each applied as it is told, in the one order; nothing is decided."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from typing import Any

import pytest

from plugin_sdk.child import confine

PARENT = 77
NOTHING: dict[str, Any] = {
    "groups": [],
    "namespaces": [],
    "hostname": "",
    "root": None,
    "cwd": "/somewhere",
    "nested_user": False,
    "environment": {},
    "rlimits": [],
    "keep": [3, 4, 5],
    "uid": None,
    "landlock": None,
    "seccomp": None,
    "probes": [],
    "canary": "/canary",
    "host_pid": 1,
}
EVERYTHING: dict[str, Any] = {
    **NOTHING,
    "groups": [["/group/tasks", False]],
    "namespaces": [["network-namespace", 1], ["own-root", 2]],
    "hostname": "plugin",
    "root": {"at": "/at"},
    "nested_user": True,
    "environment": {"LANG": "C"},
    "rlimits": [[7, 10]],
    "uid": 5,
    "landlock": {"fs": 1, "net": 2, "scoped": 3, "rules": [["/x", 4]]},
    "seccomp": b"filter",
    "probes": ["socket"],
}
STEPS = (
    *(
        "die_with",
        "join_groups",
        "unshare",
        "set_hostname",
        "make_root",
        "nest",
        "set_rlimits",
        "close_others",
    ),
    *("drop_bounding_set", "become", "drop_capabilities", "forbid_new_privileges"),
    *("restrict_with_landlock", "load_filter", "try_all", "_set_environment"),
)
READ_BACK = {"open_descriptors": [0], "parent_death_signal": 9, "securebits": 0}


class Recorder:
    """Stands for every mechanism; notes what it was asked, and may refuse one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.calls: list[tuple[Any, ...]] = []
        self.refuses = ""
        for name in STEPS:
            monkeypatch.setattr(confine, name, self._step(name))
        for name in ("setsid", "umask", "chdir"):
            monkeypatch.setattr(os, name, self._step(name))
        for name, value in READ_BACK.items():
            monkeypatch.setattr(confine, name, lambda value=value: value)
        monkeypatch.setattr(os, "getsid", lambda _: 1)

    def _step(self, name: str) -> Any:
        def step(*arguments: Any) -> Any:
            given = [a for a in arguments if not (name == "nest" and isinstance(a, int))]
            self.calls.append((name, *given))
            if name == self.refuses:
                raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))
            return {}

        return step

    @property
    def names(self) -> list[str]:
        return [name for name, *_ in self.calls]


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    opened, really_open = [], os.open

    def open_and_note(*arguments: Any, **options: Any) -> int:
        opened.append(really_open(*arguments, **options))
        return opened[-1]

    monkeypatch.setattr(os, "open", open_and_note)
    yield Recorder(monkeypatch)
    # The real close_others would have done this.
    for descriptor in opened:
        os.close(descriptor)


def test_order(recorder: Recorder) -> None:
    confine.apply_plan(EVERYTHING, PARENT)
    assert recorder.calls == [
        ("die_with", PARENT),
        ("join_groups", [["/group/tasks", False]]),
        ("unshare", 1),
        ("unshare", 2),
        ("set_hostname", "plugin"),
        ("make_root", {"at": "/at"}),
        ("nest",),
        ("setsid",),
        ("_set_environment", {"LANG": "C"}),
        ("umask", 0o077),
        ("set_rlimits", [[7, 10]]),
        ("close_others", [3, 4, 5]),
        ("drop_bounding_set",),
        ("become", 5),
        ("drop_capabilities",),
        ("forbid_new_privileges",),
        ("die_with", PARENT),
        ("restrict_with_landlock", 1, 2, 3, [["/x", 4]]),
        ("load_filter", b"filter"),
        ("try_all", ["socket"], "/canary", 1),
    ]


def test_what_a_plan_does_not_name_is_not_done(recorder: Recorder) -> None:
    confine.apply_plan(NOTHING, PARENT)
    asked_for = {"unshare", "set_hostname", "make_root", "nest", "become"}
    asked_for |= {"restrict_with_landlock", "load_filter"}
    assert not asked_for & set(recorder.names)
    assert ("chdir", "/somewhere") in recorder.calls
    # What every plan has.
    always = {"die_with", "setsid", "umask", "set_rlimits", "close_others", "drop_capabilities"}
    assert always | {"drop_bounding_set", "forbid_new_privileges"} <= set(recorder.names)
    assert recorder.names.count("die_with") == 2


def test_report_is_what_was_read_back(recorder: Recorder) -> None:
    report = confine.apply_plan(EVERYTHING, PARENT)
    assert {name: report[name] for name in ("descriptors", "parent_death_signal")} == {
        "descriptors": [0],
        "parent_death_signal": 9,
    }
    assert report["environment"] == sorted(os.environ)
    assert report["user"] == [*os.getresuid(), *os.getresgid(), *os.getgroups()]
    assert (report["hostname"], report["pid"]) == (os.uname().nodename, os.getpid())
    assert (report["session"], report["securebits"], report["probes"]) == (1, 0, {})
    assert recorder.names[-1] == "try_all"


@pytest.mark.parametrize(
    ("step", "layer"),
    [
        ("die_with", "parent-death"),
        ("unshare", "network-namespace"),
        ("set_hostname", "uts-namespace"),
        ("make_root", "own-root"),
        ("nest", "user-namespace"),
        ("setsid", "session"),
        ("set_rlimits", "rlimits"),
        ("close_others", "inherited-descriptors"),
        ("drop_bounding_set", "capabilities"),
        ("become", "own-uid"),
        ("drop_capabilities", "capabilities"),
        ("forbid_new_privileges", "no-new-privs"),
        ("restrict_with_landlock", "landlock"),
        ("load_filter", "seccomp"),
    ],
)
def test_refused_step_is_named_by_its_layer_and_ends_it(
    recorder: Recorder, step: str, layer: str
) -> None:
    recorder.refuses = step
    with pytest.raises(confine.ConfineError) as caught:
        confine.apply_plan(EVERYTHING, PARENT)
    assert caught.value.code == layer
    assert f"the layer {layer} could not be applied" in str(caught.value)
    assert "Operation not permitted" in str(caught.value)
    assert recorder.names[-1] == step


def test_environment_is_replaced() -> None:
    before = dict(os.environ)
    try:
        os.environ["SECRET"] = "1"
        confine._set_environment({"LANG": "C"})
        assert dict(os.environ) == {"LANG": "C"}
        assert os.getenv("SECRET") is None
    finally:
        os.environ.clear()
        os.environ.update(before)
