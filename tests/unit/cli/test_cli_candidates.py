from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox_host.cli import candidates
from sandbox_host.cli.candidates import Candidate, find_candidates
from sandbox_host.errors import BundleError


def _touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("{}")
    return path


def _found(path: Path) -> list[str]:
    return [str(one.path.relative_to(path)) for one in find_candidates(path)]


@pytest.mark.parametrize("name", ["plugin.json", "plugin.dsse.json"])
def test_a_directory_with_either_file_is_a_plugin(tmp_path: Path, name: str) -> None:
    _touch(tmp_path / name)
    _touch(tmp_path / "inner" / "plugin.json")
    assert find_candidates(tmp_path) == [Candidate(tmp_path, name)]


@pytest.mark.parametrize("kind", ["fifo", "directory", "link"])
def test_whatever_kind_that_file_is_of(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "plugins" / "a" / "plugin.json"
    file.parent.mkdir(parents=True)
    {
        "fifo": lambda: os.mkfifo(file),
        "directory": file.mkdir,
        "link": lambda: file.symlink_to("nowhere"),
    }[kind]()
    assert _found(tmp_path / "plugins") == ["a"]


def test_plugins_and_archives_are_found_two_levels_down(tmp_path: Path) -> None:
    for path in ("b", "a", "group/c", "group/deeper/d", "a/inside"):
        _touch(tmp_path / path / "plugin.json")
    for path in ("e.plugin", "group/f.plugin", "a/no.plugin", "group/deeper/no.plugin"):
        _touch(tmp_path / path)
    for path in (".hidden/plugin.json", "__pycache__/plugin.json", "README.md", "group/x.zip"):
        _touch(tmp_path / path)
    assert _found(tmp_path) == ["a", "b", "e.plugin", "group/c", "group/f.plugin"]
    assert [one.archive for one in find_candidates(tmp_path)] == [False, False, True, False, True]


def test_a_link_to_a_plugin_is_a_candidate_and_other_links_are_not(tmp_path: Path) -> None:
    _touch(tmp_path / "elsewhere" / "plugin.json")
    _touch(tmp_path / "elsewhere" / "text.md")
    plugins = tmp_path / "plugins"
    _touch(plugins / "a" / "plugin.json")
    (plugins / "linked").symlink_to(tmp_path / "elsewhere")
    (plugins / "text.md").symlink_to(tmp_path / "elsewhere" / "text.md")
    (plugins / "broken").symlink_to("nowhere")
    (plugins / "loop").symlink_to("loop")
    assert _found(plugins) == ["a", "linked"]


def test_nothing_is_hidden_behind_a_link_or_a_name(tmp_path: Path) -> None:
    _touch(tmp_path / ".away" / "group" / "evil" / "plugin.json")
    _touch(tmp_path / ".away" / "x.plugin")
    _touch(tmp_path / ".away" / "a" / "b" / "plugin.json")
    _touch(tmp_path / "docs" / "text.md")
    plugins = tmp_path / "plugins"
    _touch(plugins / "__evil" / "plugin.json")
    (plugins / "group").symlink_to("../.away/group")
    (plugins / "x.plugin").symlink_to("../.away/x.plugin")
    (plugins / "docs").symlink_to("../docs")
    (plugins / "inner").mkdir()
    (plugins / "inner" / "linked").symlink_to("../../.away/a/b")
    (plugins / "inner" / "too_deep").symlink_to("../../.away/a")
    assert _found(plugins) == ["__evil", "group", "inner/linked", "x.plugin"]


def test_what_is_behind_links_counts_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(5):
        _touch(tmp_path / "much" / str(number))
    plugins = tmp_path / "plugins"
    _touch(plugins / "a" / "plugin.json")
    for name in ("b", "c"):
        (plugins / name).symlink_to("../much")
    monkeypatch.setattr(candidates, "MAX_ENTRIES", 13)
    assert _found(plugins) == ["a"]
    monkeypatch.setattr(candidates, "MAX_ENTRIES", 12)
    with pytest.raises(BundleError, match="more than 12 names"):
        find_candidates(plugins)


def test_a_link_and_a_file_are_left_to_whoever_reads_them(tmp_path: Path) -> None:
    file = _touch(tmp_path / "x.plugin")
    (tmp_path / "link").symlink_to(tmp_path)
    assert find_candidates(file) == [Candidate(file, archive=True)]
    assert find_candidates(tmp_path / "link") == [Candidate(tmp_path / "link")]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every directory")
def test_a_directory_that_is_closed_to_us_is_not_overlooked(tmp_path: Path) -> None:
    _touch(tmp_path / "closed" / "plugin.json")
    (tmp_path / "closed").chmod(0)
    try:
        assert _found(tmp_path) == ["closed"]
    finally:
        (tmp_path / "closed").chmod(0o700)


def test_no_plugin_is_no_success(tmp_path: Path) -> None:
    _touch(tmp_path / "some" / "other.json")
    with pytest.raises(BundleError, match="there is no plugin in"):
        find_candidates(tmp_path)


@pytest.mark.parametrize(("bound", "value"), [("MAX_ENTRIES", 4), ("MAX_CANDIDATES", 2)])
def test_more_than_the_bounds_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bound: str, value: int
) -> None:
    for name in ("a", "b"):
        _touch(tmp_path / name / "plugin.json")
    for name in (".x", "y"):
        (tmp_path / name).mkdir()
    monkeypatch.setattr(candidates, bound, value)
    assert _found(tmp_path) == ["a", "b"]
    _touch(tmp_path / "c" / "plugin.json")
    with pytest.raises(BundleError, match=f"more than {value}"):
        find_candidates(tmp_path)


def test_no_descriptor_is_left_open(tmp_path: Path) -> None:
    for name in ("a", "group/b", "group/c"):
        _touch(tmp_path / name / "plugin.json")
    before = len(os.listdir("/proc/self/fd"))
    find_candidates(tmp_path)
    assert len(os.listdir("/proc/self/fd")) == before
