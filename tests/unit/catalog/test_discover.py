"""Discovery lists what is there; one bad plugin never hides the others."""

from __future__ import annotations

import json
import os

import pytest

import sandbox_host.catalog.discover as room
from sandbox_host.catalog.discover import discover
from sandbox_host.errors import ConfigError
from tests.support.archives import packed


@pytest.fixture
def plugin(tmp_path):
    def write(directory, name=None, **keys):
        base = {"name": name or directory, "version": "1", "description": "d", "author": "a"}
        (tmp_path / directory).mkdir()
        (tmp_path / directory / "plugin.json").write_text(json.dumps(base | keys))
        return tmp_path / directory

    return write


def listed(directory):
    return {one.path.name: (one.name, one.state, one.reason) for one in discover(directory)}


def test_the_good_the_disabled_and_the_bad(plugin, tmp_path):
    plugin("good")
    plugin("off", config={"enabled": False})
    plugin("wrong", limits={"memory": True})
    (plugin("broken") / "plugin.json").write_text("{")
    plugin("Camel", name="CamelPlugin")
    found = listed(tmp_path)
    assert list(found) == ["Camel", "broken", "good", "off", "wrong"]
    assert found["good"] == ("good", "found", "")
    assert found["Camel"] == ("CamelPlugin", "found", "")
    assert found["off"] == ("off", "disabled", "config.enabled is false")
    assert found["broken"][:2] == (None, "unreadable")
    assert found["broken"][2].startswith("plugin.json: expected JSON")
    assert found["wrong"][2].startswith("plugin.json: limits.memory: expected bytes")


def test_what_is_no_plugin_is_not_listed(plugin, tmp_path):
    plugin(".hidden")
    plugin("__pycache__")
    (tmp_path / "docs").mkdir()
    (tmp_path / "README.md").write_text("x")
    assert listed(tmp_path) == {}


def test_links_are_not_followed(plugin, tmp_path):
    real = plugin("real")
    (tmp_path / "linked").symlink_to(real)
    (tmp_path / "inner").mkdir()
    (tmp_path / "inner/plugin.json").symlink_to(real / "plugin.json")
    found = listed(tmp_path)
    assert found["linked"] == (
        None,
        "unreadable",
        "it is a symbolic link, and links are not followed",
    )
    assert found["inner"] == (None, "unreadable", "its plugin.json is not a regular file")
    assert found["real"] == ("real", "found", "")


def archive(path, **keys):
    base = {"name": path.stem, "version": "1", "description": "d", "author": "a"}
    files = {"plugin.json": json.dumps(base | keys).encode(), "__init__.py": b""}
    path.write_bytes(packed(files))


def test_archives_are_plugins_too(plugin, tmp_path):
    archive(tmp_path / "packed.plugin")
    archive(tmp_path / "off.plugin", config={"enabled": False})
    archive(tmp_path / "wrong.plugin", limits={"memory": True})
    archive(tmp_path / "otherwise_called.zip")
    archive(tmp_path / "twice.plugin", name="same")
    plugin("twice", name="same")
    (tmp_path / "empty.plugin").write_bytes(packed({"x": b""}))
    (tmp_path / "text.plugin").write_text("hello")
    (tmp_path / "linked.plugin").symlink_to("packed.plugin")
    found = listed(tmp_path)
    assert found["packed.plugin"] == ("packed", "found", "")
    assert found["off.plugin"] == ("off", "disabled", "config.enabled is false")
    assert found["wrong.plugin"][2].startswith("plugin.json: limits.memory: expected bytes")
    assert found["twice"][1] == found["twice.plugin"][1] == "unreadable"
    assert "is not a plugin's archive" in found["text.plugin"][2]
    assert found["linked.plugin"][2] == "it is a symbolic link, and links are not followed"
    assert not {"otherwise_called.zip", "empty.plugin"} & set(found)


def test_a_fifo_does_not_hold_discovery(tmp_path):
    (tmp_path / "fifo").mkdir()
    os.mkfifo(tmp_path / "fifo/plugin.json")
    assert listed(tmp_path)["fifo"][2] == "its plugin.json is not a regular file"


def test_a_huge_file_is_not_read_whole(plugin, tmp_path):
    os.truncate(plugin("huge") / "plugin.json", 2**40)
    assert "expected at most 65536 bytes" in listed(tmp_path)["huge"][2]


def test_two_of_one_identity(plugin, tmp_path):
    plugin("a", name="MyPlugin")
    plugin("b", name="my_plugin")
    plugin("c", name="other")
    found = listed(tmp_path)
    assert found["a"] == ("MyPlugin", "unreadable", "its name is also that of the plugin in b")
    assert found["b"] == ("my_plugin", "unreadable", "its name is also that of the plugin in a")
    assert found["c"][1] == "found"


def test_a_hostile_directory_name_is_only_a_name(plugin, tmp_path):
    plugin("x\x1b[2J", name="fine")
    plugin("y", name="fine")
    assert "\x1b" not in listed(tmp_path)["y"][2]


def test_a_directory_without_permission(plugin, tmp_path, monkeypatch):
    plugin("good")
    plugin("locked")
    real = os.open

    def refusing(path, *args, **keys):
        # Root may read everything, so the kernel's answer is given here.
        if path == "locked":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **keys)

    monkeypatch.setattr(room.os, "open", refusing)
    found = listed(tmp_path)
    assert found["locked"] == (None, "unreadable", "it cannot be read: Permission denied")
    assert found["good"][1] == "found"


def test_an_entry_that_vanishes_is_passed_over(plugin, tmp_path, monkeypatch):
    plugin("good")
    monkeypatch.setattr(room, "names_in", lambda fd, directory: ["gone", "good"])
    assert [one.name for one in discover(tmp_path)] == ["good"]


def test_too_many_entries(plugin, tmp_path, monkeypatch):
    monkeypatch.setattr(room, "MAX_ENTRIES", 1)
    plugin("one")
    plugin("two")
    with pytest.raises(ConfigError, match="more than 1 entries"):
        discover(tmp_path)


def test_no_directory(tmp_path):
    with pytest.raises(ConfigError, match="cannot be read"):
        discover(tmp_path / "nowhere")
