"""What a confined interpreter may read: the standard library, and nothing installed beside it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sandbox_host.backends.linux.interpreter import interpreter_paths, interpreter_places, resolve
from sandbox_host.errors import ConfinementError

VERSION = f"python{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture
def prefix(tmp_path: Path) -> Path:
    """A Python as it is built from source: site-packages inside the standard library."""
    library = tmp_path / "lib" / VERSION
    for name in ("json", "lib-dynload", "site-packages", "test", "__pycache__", "dist-packages"):
        (library / name).mkdir(parents=True)
        (library / name / "file.py").write_text("")
    for name in ("os.py", "abc.py"):
        (library / name).write_text("")
    (library / "link").symlink_to("/etc")
    (tmp_path / "lib" / "libpython3.so").write_text("")
    (tmp_path / "bin").mkdir()
    return tmp_path


def granted(prefix: Path) -> dict[Path, int]:
    places = interpreter_places(prefix / "bin" / "python3")
    return {Path(place.path): place.rights for place in places}


def test_library_without_what_is_installed(prefix: Path) -> None:
    library = prefix / "lib" / VERSION
    found = {path for path in granted(prefix) if path.is_relative_to(prefix)}
    names = {str(path.relative_to(library)) for path in found if path.is_relative_to(library)}
    assert {"json", "lib-dynload", "os.py", "abc.py", "__pycache__"} <= names
    assert not {"site-packages", "dist-packages", "test", "."} & names
    assert prefix / "lib" / "libpython3.so" in found


def test_link_in_the_library_leads_nowhere(prefix: Path) -> None:
    places = granted(prefix)
    assert not {Path("/etc"), prefix / "lib" / VERSION / "link"} & set(places)


def test_library_without_anything_foreign_is_one_place(tmp_path: Path) -> None:
    library = tmp_path / "lib" / VERSION
    library.mkdir(parents=True)
    (library / "os.py").write_text("")
    assert library in granted(tmp_path)
    assert library / "os.py" not in granted(tmp_path)


def test_this_interpreter_reads_its_library_and_no_site_packages() -> None:
    python = Path(os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable))
    places = [Path(place.path) for place in interpreter_places(python)]
    standard = Path(os.__file__)
    assert any(standard == place or standard.is_relative_to(place) for place in places)
    foreign = Path(pytest.__file__)
    assert not [place for place in places if foreign.is_relative_to(place)]


def test_interpreter_of_another_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "lib" / "python3.2").mkdir(parents=True)
    with pytest.raises(ConfinementError, match=VERSION) as caught:
        interpreter_places(tmp_path / "bin" / "python3")
    assert caught.value.layer == "process"


# -- links on the way ----------------------------------------------------------------------------


@pytest.fixture
def real(tmp_path: Path) -> Path:
    return Path(os.path.realpath(tmp_path))


def followed(path: Path) -> tuple[str, dict[str, str]]:
    links: dict[str, str] = {}
    return resolve(str(path), links), links


def test_path_without_a_link(real: Path) -> None:
    (real / "a").mkdir()
    assert followed(real / "a" / "b") == (str(real / "a" / "b"), {})
    assert followed(Path("/")) == ("/", {})


def test_chain_of_links(real: Path) -> None:
    (real / "target").mkdir()
    (real / "third").symlink_to("target")
    (real / "second").symlink_to(real / "third")
    (real / "first").symlink_to("second")
    path, links = followed(real / "first" / "file")
    assert path == str(real / "target" / "file")
    assert links == {
        str(real / "first"): "second",
        str(real / "second"): str(real / "third"),
        str(real / "third"): "target",
    }


def test_link_in_the_middle_and_upwards(real: Path) -> None:
    (real / "one" / "inner").mkdir(parents=True)
    (real / "two" / "deep").mkdir(parents=True)
    (real / "one" / "inner" / "up").symlink_to("../../two")
    path, links = followed(real / "one" / "inner" / "up" / "deep")
    assert path == str(real / "two" / "deep")
    assert links == {str(real / "one" / "inner" / "up"): "../../two"}


def test_link_above_the_root(real: Path) -> None:
    (real / "far").symlink_to("../" * 40 + "etc")
    assert followed(real / "far")[0] == os.path.realpath("/etc")


@pytest.mark.parametrize("target", ["self", "./self", "other"])
def test_loop_ends(real: Path, target: str) -> None:
    (real / "self").symlink_to(target)
    (real / "other").symlink_to("self")
    path, links = followed(real / "self" / "file")
    assert not os.path.exists(path)
    assert set(links) <= {str(real / "self"), str(real / "other")}


def test_dangling_link(real: Path) -> None:
    (real / "link").symlink_to("missing")
    assert followed(real / "link") == (str(real / "missing"), {str(real / "link"): "missing"})


def test_links_of_the_library_are_told(tmp_path: Path) -> None:
    python = Path(os.path.realpath(tmp_path)) / "prefix"
    (python / "real" / VERSION).mkdir(parents=True)
    (python / "lib").symlink_to("real")
    (python / "bin").mkdir()
    paths = interpreter_paths(python / "bin" / "python3")
    assert str(python / "real" / VERSION) in paths.real
    assert (str(python / "lib"), "real") in paths.links


def test_paths_are_real_and_there() -> None:
    python = Path(os.path.realpath(getattr(sys, "_base_executable", "") or sys.executable))
    paths = interpreter_paths(python)
    assert len(set(paths.real)) == len(paths.real)
    for path in paths.real:
        assert os.path.realpath(path) == path
        assert os.path.exists(path)
    for link, target in paths.links:
        assert os.readlink(link) == target
