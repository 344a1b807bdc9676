"""What a confined interpreter may read: the standard library, and nothing installed beside it."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from sandbox_host.backends.linux.interpreter import interpreter_places
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
