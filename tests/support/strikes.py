"""Strikes at a named step of a plugin's start: hooks around the host's own functions.

No pytest in here: a host in a process of its own, or of an ordinary user, strikes by it as well.
"""

from __future__ import annotations

import importlib
import os
import select
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

from sandbox_host import BlockingHost
from tests.support.bundles import manifest
from tests.support.host import Workshop

_LINUX = "sandbox_host.backends.linux"
_PAUSE_SECONDS = 0.005
_PATIENCE_SECONDS = 20.0


@dataclass(frozen=True)
class Moment:
    """Where in the host's code a step is.

    Attributes:
        place: "module:name" of the function.
        after: strike when it has returned; else before it runs.
        turn: strike at this call of it.
    """

    place: str
    after: bool = True
    turn: int = 1


BOOT = {
    "nursery-started": Moment(f"{_LINUX}.nursery:Nursery._grow_up", after=False),
    "user-namespace-made": Moment(f"{_LINUX}.nursery:Nursery._receive", turn=1),
    "maps-written": Moment(f"{_LINUX}.nursery:Nursery._write_maps"),
    "second-stage-forked": Moment(f"{_LINUX}.nursery:Nursery._receive", turn=2),
    "layers-tried": Moment(f"{_LINUX}.nursery:Nursery._receive", turn=3),
    "nursery-booted": Moment(f"{_LINUX}.nursery:Nursery.spawn", after=False),
}
"""Steps of the first start of a host, in order: the nursery's."""

DECIDE = {
    "group-made": Moment(f"{_LINUX}.backend:LinuxBackend._make_group"),
    "uid-leased": Moment(f"{_LINUX}.uids:UidLeases.take"),
    "order-compiled": Moment(f"{_LINUX}.backend:compile_plan"),
}
"""Steps of each start that are taken while its process is being forked."""

CONFINE = {
    "forked": Moment(f"{_LINUX}.backend:spawn"),
    "order-sent": Moment(f"{_LINUX}.lockdown_talk:os.write"),
    "locked-down": Moment(f"{_LINUX}.backend:_exchange"),
    "group-joined": Moment(f"{_LINUX}.cgroup_group:Group.entered"),
    "attested": Moment(f"{_LINUX}.backend:LinuxBackend._attest"),
    "load-due": Moment("sandbox_host.runtime.launch:Launcher.become_ready", after=False),
}
"""Steps of each start after that, in order, up to the first byte of the plugin's."""

LOCKING = ("cgroup-namespace", "rlimits", "landlock", "own-root", "own-uid", "seccomp")
"""Layers before which the child waits to be struck, between "order-sent" and "locked-down"."""

RUNNING = ("importing", "initialising", "ready", "calling", "unloading")
"""Steps at which code of the plugin's has run: those of `stopping_plugin`."""

_READY = Moment("sandbox_host.runtime.launch:Launcher.become_ready")

BOOTING, DECIDING, CONFINING = tuple(BOOT), tuple(DECIDE), tuple(CONFINE)
ALL = (*BOOTING, *DECIDING, *CONFINING, *LOCKING, *RUNNING)

_LINES = """
import os, time
from plugin_sdk.child import confine
apply_plan, step = confine.apply_plan, confine._step
waiting = []

def apply_or_wait(plan, parent):
    # What is mounted over later can be seen still.
    if NAME in plan["cwd"] and not os.path.exists(MARKER):
        waiting.append(LAYER)
    return apply_plan(plan, parent)

def step_or_wait(layer, action):
    if layer in waiting:
        os.write(2, b"struck")
        time.sleep(60)
    return step(layer, action)

confine.apply_plan, confine._step = apply_or_wait, step_or_wait
"""
_IMPORT = "from plugin_sdk.nursery.__main__ import main; "


_STOPPING = """
def stay(step):
    marker = context().data_dir + "/" + step
    if step == STEP and not os.path.exists(marker):
        open(marker, "w").close()
        time.sleep(60)
    return step

stay("importing")

def init_plugin():
    return bool(stay("initialising"))

@operation
def work():
    return stay("calling")

def cleanup():
    return bool(stay("unloading"))
"""


def stopping_plugin(workshop: Workshop, step: str, name: str = "victim") -> Path:
    """Write a plugin that stays at one of `RUNNING` the first time that it gets there."""
    keys = ("name", "version", "description", "author", "dependencies", "capabilities")
    metadata = {key: manifest(name).get(key, []) for key in keys}
    init = f"def get_metadata():\n    return {metadata!r}\n"
    return workshop.write(f"STEP = {step!r}\n{_STOPPING}", name=name, files={"__init__.py": init})


def journey(host: BlockingHost, bundle: Path) -> None:
    """Take a plugin through all steps, to its end."""
    plugin = host.load(bundle)
    assert plugin.call("work") == "calling"
    host.unload(plugin.name)


@contextmanager
def armed(step: str, data_dir: Path, strike: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Call ``strike`` once, when the host gets to the step.

    Args:
        step: one of `ALL`.
        data_dir: of the plugin that is started, which is a `stopping_plugin`.
        strike: is called in the thread that takes the step, or while the plugin stays at it.

    Yields:
        What tells whether it was called.
    """
    struck = threading.Event()

    def strike_once() -> None:
        if not struck.is_set():
            struck.set()
            strike()

    moment = {**BOOT, **DECIDE, **CONFINE, "ready": _READY}.get(step)
    if moment is not None:
        with _hooked(moment, strike_once):
            yield struck.is_set
        return
    if step in LOCKING:
        with _watched(data_dir / step, strike_once):
            yield struck.is_set
        return
    over = threading.Event()
    watcher = threading.Thread(target=_watch, args=(data_dir / step, over, strike_once))
    watcher.start()
    try:
        yield struck.is_set
    finally:
        over.set()
        watcher.join()


@contextmanager
def nurseries_wait(step: str, data_dir: Path) -> Iterator[None]:
    """Have every nursery that boots from now on fork children that wait at a step of `LOCKING`.

    The plugin whose data directory it is waits, and only until it was struck.
    """
    from sandbox_host.backends.linux import nursery

    values = {"NAME": data_dir.name, "MARKER": str(data_dir / step), "LAYER": step}
    lines = "".join(f"{name} = {value!r}\n" for name, value in values.items()) + _LINES
    before, _, after = nursery.BOOT.partition(_IMPORT)
    assert after
    changed = f"{before}exec({lines!r}); {_IMPORT}{after}" if step in LOCKING else nursery.BOOT
    with mock.patch.object(nursery, "BOOT", changed):
        yield


@contextmanager
def _watched(marker: Path, strike: Callable[[], None]) -> Iterator[None]:
    """Strike when the child that is forked next says that it waits."""
    from sandbox_host.backends.linux import backend

    watchers: list[threading.Thread] = []

    def watch(end: int) -> None:
        waiting, _, _ = select.select([end], [], [], _PATIENCE_SECONDS)
        os.close(end)
        marker.touch()
        if waiting:
            strike()

    def spawn(*arguments: Any, **options: Any) -> Any:
        child = original(*arguments, **options)
        if not watchers:
            watchers.append(threading.Thread(target=watch, args=(os.dup(child.log_fds[1]),)))
            watchers[0].start()
        return child

    original = backend.spawn
    with mock.patch.object(backend, "spawn", spawn):
        yield
    for watcher in watchers:
        watcher.join()


def _watch(marker: Path, over: threading.Event, strike: Callable[[], None]) -> None:
    while not over.is_set():
        if marker.exists():
            strike()
            return
        time.sleep(_PAUSE_SECONDS)


@contextmanager
def _hooked(moment: Moment, strike: Callable[[], None]) -> Iterator[None]:
    module_name, _, path = moment.place.partition(":")
    module = importlib.import_module(module_name)
    *owners, name = path.split(".")
    owner: Any = module
    for part in owners:
        owner = getattr(owner, part)
    original = getattr(owner, name)
    calls: list[int] = []

    def hook(*arguments: Any, **keywords: Any) -> Any:
        calls.append(1)
        due = len(calls) == moment.turn
        if due and not moment.after:
            strike()
        result = original(*arguments, **keywords)
        if due and moment.after:
            strike()
        return result

    if owners == ["os"]:
        # Only this module's: everybody else goes on with the real one.
        own = SimpleNamespace(**{**vars(owner), name: hook})
        with mock.patch.object(module, "os", own):
            yield
        return
    with mock.patch.object(owner, name, hook):
        yield
