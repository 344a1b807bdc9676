"""Hosts whose children do less than was planned: ``python -m tests.support.sabotage``.

Each case either patches a function of the child out, in the host's private copy of the code, or
thins the plan on its way to the child, or leaves out what the host itself does. Prints one JSON
object: what came of each case, by name. Nothing here runs unless the nursery has a user namespace
of its own: without one, a step left out could change the machine itself.
"""

from __future__ import annotations

import compileall
import contextlib
import json
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from sandbox_host import SandboxHost
from sandbox_host.backends.linux import backend as linux
from sandbox_host.backends.linux.cgroup_group import Group
from sandbox_host.backends.linux.cgroup_v1 import GroupV1
from sandbox_host.backends.linux.nursery import Nursery
from sandbox_host.errors import SandboxHostError
from sandbox_host.model import Layer, LayerStatus
from tests.support.host import Workshop
from tests.support.thrift import be_thrifty, spread
from tests.support.traces import PROMISED_SECONDS, eventually

MARKING = """
with open(context().data_dir + "/executed", "w") as marker:
    marker.write("yes")
"""
_ALLOW_ALL = b"\x06\x00\x00\x00\x00\x00\xff\x7f"
_READ_ONLY, _NO_EXECUTION = 1, 8
_NUMBER_OF_OPEN_FILES = 7


class NothingThereError(Exception):
    """There is nothing on this machine that the case could leave out."""


# -- steps patched out: module of plugin_sdk, and what is added at its end -----------------------

_CONFINE = "child/confine.py"


def _out(name: str) -> str:
    return f"\n{name} = lambda *_, **__: None\n"


SKIPPED: dict[str, tuple[str, str]] = {
    **{
        name: (_CONFINE, _out(name))
        for name in (
            *("die_with", "unshare", "set_hostname", "make_root", "nest", "_set_environment"),
            *("set_rlimits", "close_others", "drop_bounding_set", "become", "drop_capabilities"),
            *("forbid_new_privileges", "restrict_with_landlock", "load_filter"),
        )
    },
    "setsid": (_CONFINE, _out("os.setsid")),
    "umask": (_CONFINE, _out("os.umask")),
    "die_with the second time": (
        _CONFINE,
        """
_die_with, _calls = die_with, []
def die_with(parent):
    _calls.append(1)
    len(_calls) > 1 or _die_with(parent)
""",
    ),
    "root made read-only": ("lockdown/root.py", _out("restrict")),
    "probes": (_CONFINE, "\ntry_all = lambda *_: {}\n"),
    "pid namespace of the child": ("nursery/serve.py", _out("unshare")),
}


# -- plans thinned on the way ---------------------------------------------------------------------

Change = Callable[[dict[str, Any]], None]


def _without_namespace(layer: str) -> Change:
    def change(plan: dict[str, Any]) -> None:
        plan["namespaces"] = [pair for pair in plan["namespaces"] if pair[0] != layer]

    return change


def _set(key: str, value: Any) -> Change:
    return lambda plan: plan.update({key: value})


def _root(change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Change:
    def apply(plan: dict[str, Any]) -> None:
        mounts = change([dict(mount) for mount in plan["root"]["mounts"]])
        plan["root"] = {**plan["root"], "mounts": mounts}

    return apply


def _without_first(kind: str) -> Change:
    def change(mounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        kinds = [mount["kind"] for mount in mounts]
        if kind not in kinds:
            raise NothingThereError
        at = kinds.index(kind)
        return mounts[:at] + mounts[at + 1 :]

    return _root(change)


def _binds_without(flag: int) -> Change:
    def change(mounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for mount in mounts:
            if mount["kind"] == "bind" and mount["path"].endswith("/sdk"):
                mount["flags"] &= ~flag
        return mounts

    return _root(change)


def _one_bind_more(mounts: list[dict[str, Any]]) -> list[dict[str, Any]]:
    status = os.lstat("/etc/passwd")
    source = [status.st_dev, status.st_ino]
    more = {"kind": "bind", "path": "/etc/passwd", "flags": 15, "data": "", "source": source}
    return [*mounts, more]


def _landlock_with_the_root_readable(plan: dict[str, Any]) -> None:
    rules = [*plan["landlock"]["rules"], ["/", 0b1100]]
    plan["landlock"] = {**plan["landlock"], "rules": rules}


def _one_limit_higher(plan: dict[str, Any]) -> None:
    plan["rlimits"] = [[n, v + (n == _NUMBER_OF_OPEN_FILES)] for n, v in plan["rlimits"]]


def _one_limit_less(plan: dict[str, Any]) -> None:
    plan["rlimits"] = [pair for pair in plan["rlimits"] if pair[0] != _NUMBER_OF_OPEN_FILES]


def _another_uid(plan: dict[str, Any]) -> None:
    plan["uid"] += 1


def _one_variable_more(plan: dict[str, Any]) -> None:
    plan["environment"] = {**plan["environment"], "SECRET": "1"}


def _one_probe_less(plan: dict[str, Any]) -> None:
    plan["probes"] = [name for name in plan["probes"] if name != "socket"]


_NAMESPACES = ("network", "ipc", "uts", "cgroup")
THINNED: dict[str, Change] = {
    **{f"no {name} namespace": _without_namespace(f"{name}-namespace") for name in _NAMESPACES},
    "no mount namespace": _without_namespace("own-root"),
    "no host name": _set("hostname", ""),
    "another host name": _set("hostname", "host"),
    "no root": _set("root", None),
    "no root and no landlock": lambda plan: plan.update(root=None, landlock=None),
    "one bind more": _root(_one_bind_more),
    "a bind that is writable": _binds_without(_READ_ONLY),
    "a bind with execution": _binds_without(_NO_EXECUTION),
    "no scratch": _without_first("tmpfs"),
    "nothing hidden": _without_first("hidden"),
    "no proc": _without_first("proc"),
    "not nested": _set("nested_user", False),
    "one variable more": _one_variable_more,
    "no limits": _set("rlimits", []),
    "one limit higher": _one_limit_higher,
    "one limit less": _one_limit_less,
    "no uid": _set("uid", None),
    "another uid": _another_uid,
    "no landlock": _set("landlock", None),
    "landlock with the root readable": _landlock_with_the_root_readable,
    "no seccomp": _set("seccomp", None),
    "a filter that allows everything": _set("seccomp", _ALLOW_ALL),
    "no probes": _set("probes", []),
    "one probe less": _one_probe_less,
}


class _Codec:
    """What the backend packs with, with less in it."""

    unpack = staticmethod(linux.codec.unpack)

    def __init__(self, change: Change) -> None:
        self._change = change
        self._thinned = False

    def thin(self, plan: dict[str, Any]) -> None:
        """Change what a child does before it has an order; what is not in it, the order has."""
        with contextlib.suppress(KeyError, TypeError, NothingThereError):
            self._change(plan)
            self._thinned = True

    def pack(self, plan: dict[str, Any]) -> bytes:
        """Pack a copy that was changed."""
        sent = dict(plan)
        try:
            self._change(sent)
        except NothingThereError:
            if not self._thinned:
                raise
        return _pack(sent)


_pack, _codec = linux.codec.pack, linux.codec
_request = Nursery._request


def _thin(change: Change) -> None:
    """Have the order thinned, and what a child does before it has one."""
    codec = _Codec(change)
    linux.codec = codec  # type: ignore[assignment]

    def request(nursery: Nursery, preparation: dict[str, Any] | None) -> dict[str, Any]:
        if preparation is not None:
            preparation = dict(preparation)
            codec.thin(preparation)
        return _request(nursery, preparation)

    Nursery._request = request  # type: ignore[method-assign]


# -- what the host leaves out ---------------------------------------------------------------------


def _no_own_pid(backend: Any) -> None:
    backend._shared_nursery().own_pid = False


def _leave_out_of_groups() -> None:
    Group.add = lambda *_: None  # type: ignore[method-assign]
    GroupV1.ways_in = lambda _: []  # type: ignore[method-assign]


NOT_IN_THE_GROUP = "not added to the group"
HOSTS_OWN: dict[str, Callable[[Any], None]] = {
    NOT_IN_THE_GROUP: lambda _: _leave_out_of_groups(),
    "not pid 1": _no_own_pid,
}
_add, _ways_in = Group.add, GroupV1.ways_in

HONEST = "nothing left out"
FOR_ROOT = frozenset({"become", "die_with the second time", "no uid", "another uid"})
FOR_ORDINARY_USERS = frozenset({"nest", "not nested"})


def cases(*, root: bool) -> tuple[str, ...]:
    """Return the names of what a host of root's, or an ordinary user's, can leave out."""
    others = FOR_ORDINARY_USERS if root else FOR_ROOT
    every = (*SKIPPED, *THINNED, *HOSTS_OWN, HONEST)
    return tuple(name for name in every if name not in others)


def attempt(case: str, root: Path) -> dict[str, Any] | None:
    """Load a plugin twice in a host that leaves something out; None if there is no such thing."""
    workshop = Workshop(root)
    config = workshop.config()
    # With threads, so that no probe of theirs is still there to be told of instead.
    bundle = workshop.write(MARKING, permissions={"threads": True})
    with SandboxHost.blocking(config) as host:
        backend: Any = host._core._launcher._backend
        (run,) = (workshop.state_dir / "run").iterdir()
        if case in SKIPPED:
            _patch(run / "sdk" / "plugin_sdk", *SKIPPED[case])
        offers = _check_that_this_is_safe(backend)
        if case == NOT_IN_THE_GROUP and offers[Layer.CGROUP] is not LayerStatus.ACTIVE:
            return None
        if case in THINNED:
            _thin(THINNED[case])
        if case in HOSTS_OWN:
            HOSTS_OWN[case](backend)
        try:
            first = _load(host, bundle)
            before = _held(backend, run)
            _load(host, bundle)
            # The watch of the disks may have looked at its directory just now.
            eventually(lambda: _held(backend, run) == before, PROMISED_SECONDS)
            after = _held(backend, run)
            plugins = list(host.plugins)
        except NothingThereError:
            return None
        finally:
            linux.codec, Nursery._request = _codec, _request  # type: ignore[method-assign]
            Group.add, GroupV1.ways_in = _add, _ways_in  # type: ignore[method-assign]
    events = [json.loads(line)["event"] for line in config.journal_path.read_text().splitlines()]
    executed = (workshop.data_dir("sample") / "executed").exists()
    return {
        **first,
        "executed": executed,
        "plugins": plugins,
        "held": after,
        "grew": after["descriptors"] > before["descriptors"],
        "events": events,
    }


def _patch(package: Path, module: str, more: str) -> None:
    path = package / module
    path.write_text(path.read_text() + more)
    compileall.compile_file(path, quiet=2, force=True)


def _check_that_this_is_safe(backend: Any) -> dict[Layer, LayerStatus]:
    offers = {offer.layer: offer.status for offer in backend.offers()}
    nursery = backend._shared_nursery()
    if offers[Layer.USER_NAMESPACE] is not LayerStatus.ACTIVE or not nursery.user_namespace:
        raise SystemExit("the nursery has no user namespace of its own")
    return offers


def _load(host: Any, bundle: Path) -> dict[str, Any]:
    try:
        host.load(bundle)
    except SandboxHostError as error:
        layer = getattr(error, "layer", "")
        return {"error": type(error).__name__, "layer": layer, "text": str(error)}
    host.unload("sample")
    return {"error": "", "layer": "", "text": ""}


def _held(backend: Any, run: Path) -> dict[str, Any]:
    nursery = psutil.Process(backend._nursery.pid)
    return {
        "processes": [p.pid for p in nursery.children(recursive=True)],
        "descriptors": len(os.listdir("/proc/self/fd")),
        "bundles": os.listdir(run / "bundles"),
        "scratch": os.listdir(run / "scratch"),
        "uids": sorted(backend._uids._leased),
        "groups": [str(path) for path in _groups(backend)],
    }


def _groups(backend: Any) -> list[Path]:
    directories = getattr(backend._cgroups, "_directories", {})
    own = [directory.path for directory in directories.values()]
    return [entry for path in own for entry in path.iterdir() if entry.is_dir()]


def main(*names: str) -> None:
    """Go through the cases of these names, or all."""
    be_thrifty()
    outcomes = {}
    for case in names or cases(root=os.geteuid() == 0):
        with tempfile.TemporaryDirectory() as directory:
            outcomes[case] = attempt(case, spread(Path(directory).resolve()))
    print(json.dumps(outcomes))


if __name__ == "__main__":
    main(*sys.argv[1:])
