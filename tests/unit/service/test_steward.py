"""What follows from the words of a watched plugin directory."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from sandbox_host import HostConfig, Instance
from sandbox_host.catalog.discover import DiscoveredState
from sandbox_host.catalog.roster import Change, ChangeKind, Judged
from sandbox_host.errors import ConfigError, PluginNotFoundError, ReloadError
from sandbox_host.model import Manifest, State, plugin_of
from sandbox_host.service.declared import Declared
from sandbox_host.service.hosting import ServedHost
from sandbox_host.service.steward import Steward
from sandbox_host.supervision.standing import Standing

LATE = 20.0


class Plugin:
    def __init__(self, name: str, digest: str) -> None:
        self.name, self.version, self.state = name, f"1.{digest}", State.READY
        self.plan = SimpleNamespace(root_digest=digest, instance=None, manifest=None)


class Host:
    """Keeps what is loaded, by the digest that the file of the plugin holds."""

    def __init__(self) -> None:
        self.plugins: dict[str, Plugin] = {}
        self.done: list[tuple[str, str]] = []
        self.hold = threading.Event()
        self.hold.set()
        self.broken: set[str] = set()
        self.away: set[str] = set()
        self.manifests: dict[str, Manifest] = {}
        self.shared: dict[str, tuple[str, ...]] = {}

    def plugin(self, name: str) -> Plugin:
        return self.plugins[name]

    def quarantined(self, name: str) -> str:
        return "too often" if name in self.away else ""

    def disabled(self, name: str, why: str) -> None:
        self.done.append(("disabled", name))

    def processes_of(self, name: str) -> tuple[str, ...]:
        return tuple(one for one in self.plugins if plugin_of(one)[0] == name)

    def _start(self, what: str, path: Path, instance: Instance | None) -> None:
        name = path.name if instance is None else f"{path.name}@{instance.name}"
        self.done.append((what, name))
        assert self.hold.wait(LATE)
        if name in self.broken:
            raise ConfigError("no luck")
        made = self.plugins[name] = Plugin(name, path.read_text())
        made.plan.instance = instance

    def load_strictly(
        self, path: Path, *, restart: object, instance: Instance | None, replica: bool
    ) -> None:
        self._start("load", path, instance)

    def share(self, plugin: str, names: tuple[str, ...]) -> None:
        self.shared[plugin] = names

    def standing(self) -> Standing:
        return Standing(self.manifests[one] for one in self.plugins if one in self.manifests)

    def check_reload(self, manifest: Manifest) -> None:
        if spoiled := self.standing().spoils(manifest):
            users = tuple(one.plugin for one in spoiled)
            raise ReloadError(spoiled[0].fault, plugin=manifest.identity, dependants=users)

    def put_out(self, name: str) -> None:
        self.unload(name)

    def renew(self, name: str, path: Path, *, instance: Instance | None, replica: bool) -> None:
        self._start("reload", path, instance)

    def needs(self, name: str, *needs: str, version: str = "1.0.0") -> Manifest:
        """Return plugin.json of what will be loaded."""
        self.manifests[name] = Manifest(name, name, version, "d", "a", dependencies=needs)
        return self.manifests[name]

    def unload_of(self, plugin: str, names: tuple[str, ...]) -> tuple[str, ...]:
        if names == (plugin,):
            return self.unload(plugin)
        for one in names:
            self.done.append(("unload", one))
            del self.plugins[one]
        return names

    def unload(self, name: str) -> tuple[str, ...]:
        going = {name, *(one.plugin for one in self.standing().needed_by(name))}
        levels = self.standing().stop_levels(going & self.manifests.keys())
        order = tuple(one for level in levels for one in level) or (name,)
        for one in order:
            self.done.append(("unload", one))
            if self.plugins.pop(one, None) is None:
                raise PluginNotFoundError("none", plugin=one)
        return order


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def told() -> list[str]:
    return []


@pytest.fixture
def steward(host: Host, told: list[str]) -> Iterator[Steward]:
    made = Steward(cast("ServedHost", host), None, told.append)
    yield made
    host.hold.set()
    made.close()


def change(path: Path, kind: ChangeKind, **more: Any) -> Change:
    digest = path.read_text() if path.exists() else ""
    options = {"enabled": True, "digest": digest} | more
    return Change(kind=kind, path=path, identity=path.name, **options)


def put(tmp_path: Path, name: str, digest: str) -> Path:
    path = tmp_path / name
    path.write_text(digest)
    return path


def test_a_life(steward: Steward, host: Host, told: list[str], tmp_path: Path) -> None:
    one = put(tmp_path, "one", "a")
    for kind, digest, expected in (
        (ChangeKind.ADDED, "a", "load"),
        (ChangeKind.CHANGED, "b", "reload"),
        (ChangeKind.DISABLED, "b", "unload"),
        (ChangeKind.ENABLED, "b", "load"),
        (ChangeKind.REMOVED, "b", "unload"),
    ):
        put(tmp_path, "one", digest)
        steward.take(change(one, kind, enabled=kind is not ChangeKind.DISABLED))
        assert steward.wait(LATE)
        assert [one for one in host.done if one[0] != "disabled"][-1] == (expected, "one")
    assert [what for what, _ in host.done] == [
        *("load", "reload", "unload", "disabled", "load", "unload")
    ]
    assert told[0] == "one: loaded 1.a."
    assert told[-1] == "one: unloaded, because it was removed."


def test_what_is_disabled_ends_with_its_instances(
    steward: Steward, host: Host, tmp_path: Path
) -> None:
    one = put(tmp_path, "one", "a")
    host.plugins["one@t"], host.plugins["other@t"] = Plugin("one@t", "a"), Plugin("other@t", "a")
    steward.take(change(one, ChangeKind.REMOVED))
    assert steward.wait(LATE)
    assert set(host.plugins) == {"one@t", "other@t"}  # by hand, and not the directory's
    steward.take(change(one, ChangeKind.DISABLED, enabled=False))
    assert steward.wait(LATE)
    assert set(host.plugins) == {"other@t"}


def test_what_runs_already_is_left_alone(steward: Steward, host: Host, tmp_path: Path) -> None:
    one = put(tmp_path, "one", "a")
    host.plugins["one"] = Plugin("one", "a")
    steward.take(change(one, ChangeKind.ADDED))
    steward.take(change(put(tmp_path, "two", "a"), ChangeKind.ADDED, enabled=False))
    assert steward.wait(LATE)
    assert host.done == [("disabled", "two")]


def test_the_last_word_counts(steward: Steward, host: Host, tmp_path: Path) -> None:
    one = put(tmp_path, "one", "a")
    host.hold.clear()
    steward.take(change(one, ChangeKind.ADDED))
    for digest in "bcd":
        steward.take(change(put(tmp_path, "one", digest), ChangeKind.CHANGED))
    host.hold.set()
    assert steward.wait(LATE)
    assert host.plugins["one"].plan.root_digest == "d"
    assert len(host.done) <= 2


def test_one_that_fails_or_hangs_stops_no_other(
    steward: Steward, host: Host, told: list[str], tmp_path: Path
) -> None:
    host.broken.add("one")
    steward.take(change(put(tmp_path, "one", "a"), ChangeKind.ADDED))
    steward.take(change(put(tmp_path, "two", "a"), ChangeKind.ADDED))
    assert steward.wait(LATE)
    assert set(host.plugins) == {"two"}
    assert steward.problems == {str(tmp_path / "one"): "no luck"}
    assert f"{tmp_path / 'one'}: no luck" in told
    host.broken.clear()
    steward.take(change(tmp_path / "one", ChangeKind.CHANGED))
    assert steward.wait(LATE)
    assert steward.problems == {}


def test_a_fault_of_ours_is_told_too(steward: Steward, told: list[str], tmp_path: Path) -> None:
    one = put(tmp_path, "one", "a")
    steward.take(change(one, ChangeKind.ADDED))
    assert steward.wait(LATE)
    one.unlink()
    steward.take(change(one, ChangeKind.CHANGED, digest="z"))
    assert steward.wait(LATE)
    assert "a fault of the host's: FileNotFoundError" in told[-1]


def test_what_was_tried_at_the_start_is_not_told_again(
    steward: Steward, host: Host, told: list[str], tmp_path: Path
) -> None:
    good, bad, new = (put(tmp_path, name, "a") for name in ("good", "bad", "new"))
    host.plugins["good"] = Plugin("good", "a")
    steward.loaded("good", good)
    steward.failed(bad, "no luck")
    refused = change(bad, ChangeKind.REFUSED, reason="unsigned")
    first = [change(p, ChangeKind.ADDED) for p in (good, bad, new)]
    steward.take_first([*first, refused], load=False)
    assert steward.wait(LATE)
    assert (host.done, told) == ([], [])
    # The same with a changed configuration: what failed is tried, what is new is loaded.
    steward.retry()
    steward.take_first(first, load=True)
    assert steward.wait(LATE)
    assert sorted(host.done) == [("load", "bad"), ("load", "new")]


def test_what_an_operator_unloaded_comes_back_when_it_changes(
    steward: Steward, host: Host, tmp_path: Path
) -> None:
    one = put(tmp_path, "one", "a")
    steward.disowned("one")
    steward.take_first([change(one, ChangeKind.ADDED)], load=True)
    assert steward.wait(LATE)
    assert host.done == []
    steward.take(change(one, ChangeKind.CHANGED))
    assert steward.wait(LATE)
    assert host.done == [("load", "one")]


def test_what_was_loaded_by_hand_is_not_the_directorys(
    steward: Steward, host: Host, tmp_path: Path
) -> None:
    host.plugins["one"] = Plugin("one", "a")
    steward.take(change(tmp_path / "one", ChangeKind.REMOVED))
    assert steward.wait(LATE)
    assert set(host.plugins) == {"one"}


def test_what_is_gone_after_a_while_without_a_watch(
    steward: Steward, host: Host, tmp_path: Path
) -> None:
    for name in ("kept", "off", "gone", "broken"):
        path = put(tmp_path, name, "a")
        host.plugins[name] = Plugin(name, "a")
        steward.loaded(name, path)
    (tmp_path / "gone").unlink()
    found, off = DiscoveredState.FOUND, DiscoveredState.DISABLED
    present = [
        Judged(path=tmp_path / "kept", state=found, identity="kept", digest="a"),
        Judged(path=tmp_path / "off", state=off, identity="off", digest="a"),
    ]
    steward.settle(present)
    assert steward.wait(LATE)
    # One whose new files do not verify goes on.
    assert set(host.plugins) == {"kept", "broken"}


def test_troubles_are_told_and_forgotten(steward: Steward, told: list[str], tmp_path: Path) -> None:
    path = put(tmp_path, "x\x1b[2J", "a")
    steward.take(Change(kind=ChangeKind.REFUSED, path=path, reason="it is unsigned"))
    steward.take(Change(kind=ChangeKind.WATCH, path=tmp_path, reason="it cannot be read"))
    assert list(steward.problems.values()) == ["it cannot be read", "it is unsigned"]
    steward.take(Change(kind=ChangeKind.WATCH, path=tmp_path, reason=""))
    path.unlink()
    assert steward.problems == {}
    assert "\x1b" not in "".join(told)
    assert told[-1].endswith("watched as it should be again.")


def test_closed_it_begins_nothing(steward: Steward, host: Host, tmp_path: Path) -> None:
    steward.close()
    steward.take(change(put(tmp_path, "one", "a"), ChangeKind.ADDED))
    assert host.done == []


def test_other_files_do_not_lead_out_of_quarantine(
    steward: Steward, host: Host, told: list[str], tmp_path: Path
) -> None:
    one = put(tmp_path, "one", "a")
    steward.take(change(one, ChangeKind.ADDED))
    assert steward.wait(LATE)
    host.plugins["one"].state = State.FAILED
    host.away.add("one")
    put(tmp_path, "one", "b")
    steward.take(change(one, ChangeKind.CHANGED))
    assert steward.wait(LATE)
    assert host.done == [("load", "one")]
    assert "`sandbox-host release one` starts it" in told[-1]
    host.away.clear()
    steward.take(change(one, ChangeKind.CHANGED))
    assert steward.wait(LATE)
    assert host.done[1:] == [("unload", "one"), ("load", "one")]


# -- in the order of what they need ---------------------------------------------------------------


def test_who_needs_another_waits_for_it(
    steward: Steward, host: Host, told: list[str], tmp_path: Path
) -> None:
    ones = {name: put(tmp_path, name, "a") for name in ("far", "user", "base")}
    far, user = host.needs("far", "user"), host.needs("user", "base >= 1")
    steward.take(change(ones["far"], ChangeKind.ADDED, manifest=far))
    steward.take(change(ones["user"], ChangeKind.ADDED, manifest=user))
    assert steward.wait(LATE)
    assert host.done == []
    lack = "user needs base >= 1, and there is no plugin or capability of that name."
    reasons = {one["plugin"]: one["reason"] for one in steward.waiting}
    assert reasons["user"].startswith(f"user cannot start: user -> base: {lack}")
    assert reasons["far"].startswith(f"far cannot start: far -> user -> base: {lack}")
    assert steward.problems == {}
    assert any(text.startswith(f"{ones['user']}: user cannot start") for text in told)
    base = host.needs("base")
    steward.take(change(ones["base"], ChangeKind.ADDED, manifest=base))
    assert steward.wait(LATE)
    assert host.done == [("load", "base"), ("load", "user"), ("load", "far")]
    assert steward.waiting == []


def test_who_needs_what_is_to_go_goes_first_and_comes_again(
    steward: Steward, host: Host, told: list[str], tmp_path: Path
) -> None:
    base, user = host.needs("base"), host.needs("user", "base")
    ones = {"base": base, "user": user}
    for name, manifest in ones.items():
        steward.take(change(put(tmp_path, name, "a"), ChangeKind.ADDED, manifest=manifest))
    assert steward.wait(LATE)
    host.done.clear()
    path = tmp_path / "base"
    steward.take(
        change(path, ChangeKind.DISABLED, enabled=False, manifest=base, reason="it is off")
    )
    assert steward.wait(LATE)
    assert host.done == [("unload", "user"), ("unload", "base"), ("disabled", "base")]
    assert "user: unloaded, because base, which it needs, is." in told
    (waits,) = steward.waiting
    assert "user -> base: base does not run: it is off." in waits["reason"]
    steward.take(change(path, ChangeKind.ENABLED, manifest=base))
    assert steward.wait(LATE)
    assert host.done[3:] == [("load", "base"), ("load", "user")]


def test_what_fails_is_why_others_wait(steward: Steward, host: Host, tmp_path: Path) -> None:
    host.broken.add("base")
    base, user = host.needs("base"), host.needs("user", "base")
    steward.take(change(put(tmp_path, "user", "a"), ChangeKind.ADDED, manifest=user))
    steward.take(change(put(tmp_path, "base", "a"), ChangeKind.ADDED, manifest=base))
    assert steward.wait(LATE)
    assert steward.problems == {str(tmp_path / "base"): "no luck"}
    (waits,) = steward.waiting
    assert "user -> base: base does not run: no luck." in waits["reason"]


def test_a_version_that_would_not_do_waits_for_those_that_need_the_other(
    steward: Steward, host: Host, tmp_path: Path
) -> None:
    base, user = host.needs("base"), host.needs("user", "base < 2")
    for name, manifest in (("base", base), ("user", user)):
        steward.take(change(put(tmp_path, name, "a"), ChangeKind.ADDED, manifest=manifest))
        assert steward.wait(LATE)
    newer = Manifest("base", "base", "2.0.0", "d", "a")
    steward.take(change(put(tmp_path, "base", "b"), ChangeKind.CHANGED, manifest=newer))
    assert steward.wait(LATE)
    assert [one["plugin"] for one in steward.waiting] == ["base"]
    assert host.done == [("load", "base"), ("load", "user")]
    other = host.needs("user", "base", version="1.1.0")
    steward.take(change(put(tmp_path, "user", "b"), ChangeKind.CHANGED, manifest=other))
    assert steward.wait(LATE)
    assert host.done[2:] == [("reload", "user"), ("reload", "base")]
    assert steward.waiting == []


def test_what_waited_at_the_start_goes_on_waiting(
    steward: Steward, host: Host, told: list[str], tmp_path: Path
) -> None:
    path, user = put(tmp_path, "user", "a"), host.needs("user", "base")
    reason = (
        "user cannot start: user -> base: user needs base, and there is no plugin or capability "
        "of that name. Load what it needs together with it, or before it."
    )
    steward.waits("user", path, reason)
    steward.take_first([change(path, ChangeKind.ADDED, manifest=user)], load=False)
    assert steward.wait(LATE)
    assert (host.done, told) == ([], [])  # it was told then
    assert [one["reason"] for one in steward.waiting] == [reason]
    steward.tend()
    # Whatever has loaded it: the directory need not have it.
    host.needs("base")
    host.plugins["base"] = Plugin("base", "z")
    steward.tend()
    assert steward.wait(LATE)
    assert host.done == [("load", "user")]
    steward.tend()
    assert steward.waiting == []


def test_who_waits_is_not_started_when_an_operator_unloads_it(
    steward: Steward, host: Host, tmp_path: Path
) -> None:
    user, far = host.needs("user", "base"), host.needs("far", "user")
    steward.take(change(put(tmp_path, "user", "a"), ChangeKind.ADDED, manifest=user))
    steward.take(change(put(tmp_path, "far", "a"), ChangeKind.ADDED, manifest=far))
    assert steward.wait(LATE)
    steward.disowned("user")
    host.needs("base")
    host.plugins["base"] = Plugin("base", "z")
    steward.tend()
    assert steward.wait(LATE)
    assert host.done == []
    (waits,) = steward.waiting
    assert "user does not run: its operator unloaded it." in waits["reason"]


# -- instances that are declared ------------------------------------------------------------------


def declared(**plugins: dict[str, object]) -> Declared:
    return Declared(HostConfig(instances=plugins))


def test_a_declared_plugin_is_its_instances(
    steward: Steward, host: Host, told: list[str], tmp_path: Path
) -> None:
    one = put(tmp_path, "one", "a")
    steward.declare(declared(one={"a": {}, "b": {}}))
    host.broken.add("one@b")
    steward.take(change(one, ChangeKind.ADDED))
    assert steward.wait(LATE)
    assert set(host.plugins) == {"one@a"}
    assert steward.problems == {str(one): "one@b: no luck"}
    assert f"one@b, of {one}: no luck" in told
    host.broken.clear()
    steward.take(change(put(tmp_path, "one", "b"), ChangeKind.CHANGED))
    assert steward.wait(LATE)
    assert {name: plugin.version for name, plugin in host.plugins.items()} == {
        "one@a": "1.b",
        "one@b": "1.b",
    }
    assert steward.problems == {}
    for kind in (ChangeKind.DISABLED, ChangeKind.ENABLED):
        steward.take(change(one, kind, enabled=kind is ChangeKind.ENABLED))
        assert steward.wait(LATE)
        assert set(host.plugins) == (set() if kind is ChangeKind.DISABLED else {"one@a", "one@b"})


def test_other_instances_are_declared(steward: Steward, host: Host, tmp_path: Path) -> None:
    one = put(tmp_path, "one", "a")
    host.plugins["one@hand"] = Plugin("one@hand", "a")
    for after, done in (
        (declared(), {("load", "one")}),
        # What is not declared any more goes when the others have come.
        (declared(one={"a": {}, "b": {}}), {("load", "one@a"), ("load", "one@b")}),
        (declared(one={"a": {"config": {"x": 1}}, "b": {}}), {("reload", "one@a")}),
        (declared(one={"a": {"config": {"x": 1}}}), set()),
        (declared(), {("load", "one")}),
    ):
        host.done.clear()
        before = {name for name in host.plugins if name != "one@hand"}
        steward.declare(after)
        steward.take_first([change(one, ChangeKind.ADDED)], load=True)
        assert steward.wait(LATE)
        wanted = set(after.members("one"))
        assert set(host.plugins) == wanted | {"one@hand"}
        gone = [("unload", name) for name in before - wanted]
        assert sorted(host.done[len(done) :]) == sorted(gone)
        assert set(host.done[: len(done)]) == done


def test_replicas_share_the_name_of_the_plugin(
    steward: Steward, host: Host, tmp_path: Path
) -> None:
    one = put(tmp_path, "one", "a")
    steward.declare(Declared(HostConfig(replicas={"one": 2})))
    steward.take(change(one, ChangeKind.ADDED))
    assert steward.wait(LATE)
    assert host.shared["one"] == tuple(sorted(host.plugins)) == ("one@r1", "one@r2")
    steward.declare(Declared())
    steward.look_again()
    assert steward.wait(LATE)
    assert (host.shared["one"], set(host.plugins)) == ((), {"one"})


def test_one_instance_is_unloaded_by_its_operator(
    steward: Steward, host: Host, tmp_path: Path
) -> None:
    one = put(tmp_path, "one", "a")
    steward.declare(declared(one={"a": {}, "b": {}}))
    steward.take(change(one, ChangeKind.ADDED))
    assert steward.wait(LATE)
    host.unload_of("one", ("one@a",))
    steward.disowned("one@a")
    steward.retry()
    steward.take_first([change(one, ChangeKind.ADDED)], load=True)
    assert steward.wait(LATE)
    assert set(host.plugins) == {"one@b"}
    steward.take(change(one, ChangeKind.CHANGED))
    assert steward.wait(LATE)
    assert set(host.plugins) == {"one@a", "one@b"}


def test_what_is_declared_and_not_there(steward: Steward, host: Host, tmp_path: Path) -> None:
    steward.declare(declared(one={"a": {}}, other={"a": {}}))
    assert steward.waiting == []  # nobody has looked yet
    steward.take_first([change(put(tmp_path, "one", "a"), ChangeKind.ADDED)], load=True)
    assert steward.wait(LATE)
    (waits,) = steward.waiting
    assert (waits["plugin"], waits["path"]) == ("other", "")
    assert "no plugin of that name is there" in waits["reason"]


def test_who_needs_a_plugin_has_it_with_its_first_instance(
    steward: Steward, host: Host, tmp_path: Path
) -> None:
    base, user = host.needs("base"), host.needs("user", "base")
    host.manifests |= {"base@good": base, "user@a": user}
    steward.declare(declared(base={"good": {}, "bad": {}}, user={"a": {}}))
    host.broken.add("base@bad")
    steward.take(change(put(tmp_path, "user", "a"), ChangeKind.ADDED, manifest=user))
    steward.take(change(put(tmp_path, "base", "a"), ChangeKind.ADDED, manifest=base))
    assert steward.wait(LATE)
    assert set(host.plugins) == {"base@good", "user@a"}
    assert steward.waiting == []
