from __future__ import annotations

import pytest

from sandbox_host.bundle.names import check_path, check_set, fold, shown
from sandbox_host.errors import BundleError


@pytest.mark.parametrize(
    "path",
    [
        "plugin.json",
        "__init__.py",
        "a/b/c/d.py",
        "data/données.csv",
        "data/日本語.txt",
        "with space.txt",
        ".gitignore",
        "swap.py",
        "console.py",
        "com10.py",
        "auxiliary.txt",
        "orig.py",
        "a" * 255,
        "/".join("abcdefghijklmnop"),
        "README",
        "environment.env.txt",
        "a-b.txt",
        "x~1.final.txt",
        "longer~than-eight~1",
        "nullable .txt",
        "ﬁle.txt",
        "\uff46\uff55\uff4c\uff4c.txt",
        "x²",
    ],
)
def test_ordinary_names_pass(path: str) -> None:
    check_path(path)


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("", "empty"),
        ("/etc/passwd", "empty"),
        ("../up.py", "'.' or '..'"),
        ("a/../b", "'.' or '..'"),
        ("./a", "'.' or '..'"),
        ("a//b", "empty"),
        ("a/", "empty"),
        ("a\\b", "not every platform"),
        ("c:evil", "not every platform"),
        ("what?", "not every platform"),
        ("trailing.", "ends with a dot"),
        ("trailing ", "ends with a dot or a space"),
        (" leading", "begins with a space"),
        ("new\nline", "control"),
        ("nul\0l", "control"),
        ("\x1b[31mred", "control"),
        ("\u202eyp.niam", "direction"),
        ("zero\u200bwidth", "invisible"),
        ("soft\u00adhyphen", "invisible"),
        ("hangul\u3164filler", "invisible"),
        ("variation\ufe0f", "invisible"),
        ("bom\ufeff", "invisible"),
        ("no\u00a0break", "invisible"),
        ("e\u0301.txt", "normal form C"),
        ("lone\ud800", "UTF-8"),
        ("con", "reserves"),
        ("CON.py", "reserves"),
        ("sub/aux.txt", "reserves"),
        ("COM1", "reserves"),
        ("lpt9.tar.gz", "reserves"),
        ("com¹", "reserves"),
        ("nul .txt", "reserves"),
        ("AUX   ", "ends with a dot or a space"),
        ("PLUGIN~1.JSO", "short name"),
        ("git~1", "short name"),
        ("-rf", "commands take for an option"),
        ("sub/--help", "commands take for an option"),
        ("\u0338overlay", "drawn over the character before it"),
        ("sub/\u20e3keycap", "drawn over the character before it"),
        ("a\u2215b", "looks like a slash"),
        ("a\u29f8b", "looks like a slash"),
        ("a\uff0fb", "converted to plain characters, a component holds a slash"),
        ("a\uff3cb", "converted to plain characters, it holds"),
        ("c\uff1aevil", "converted to plain characters, it holds"),
        ("name\u2026", "converted to plain characters, it ends with a dot"),
        ("\uff43\uff4f\uff4e", "converted to plain characters, Windows reserves"),
        ("\uff0drf", "converted to plain characters, it begins with a dash"),
        ("é" * 128, "longer than 255"),
        ("/".join(["d" * 200] * 6), "longer than 1024"),
        ("/".join("abcdefghijklmnopq"), "deeper than 16"),
    ],
)
def test_deceptive_and_unportable_names_are_refused(path: str, words: str) -> None:
    with pytest.raises(BundleError) as caught:
        check_path(path)
    assert words in caught.value.message
    assert str(caught.value).isprintable()
    assert str(caught.value).isascii()


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("__pycache__/main.cpython-311.pyc", "PYTHONDONTWRITEBYTECODE=1"),
        ("main.pyc", "byte-code cache"),
        ("MAIN.PYC", "byte-code cache"),
        ("main.pyo", "byte-code cache"),
        (".git/config", "Git repository"),
        (".venv/bin/python", "virtual environment"),
        ("env/pyvenv.cfg", "virtual environment"),
        (".mypy_cache/x", "cache of a development tool"),
        (".pytest_cache/x", "cache of a development tool"),
        (".DS_Store", "Finder"),
        ("._main.py", "Finder"),
        ("Thumbs.db", "Explorer"),
        ("main.py~", "left-over"),
        (".main.py.swp", "left-over"),
        ("#main.py#", "left-over"),
        (".#main.py", "left-over"),
        ("main.py.orig", "left-over"),
        (".idea/x.xml", "editor's settings"),
        (".ipynb_checkpoints/a", "Jupyter"),
        ("x.egg-info/PKG-INFO", "installed package"),
        ("node_modules/x", "Node.js"),
        (".coverage", "coverage data"),
        (".env", "secrets"),
        ("sub/plugin.dsse.json", "name of the signed envelope"),
        ("PLUGIN.DSSE.JSON", "name of the signed envelope"),
    ],
)
def test_droppings_are_called_what_they_are(path: str, words: str) -> None:
    with pytest.raises(BundleError) as caught:
        check_path(path)
    assert words in str(caught.value)
    assert caught.value.remedy


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (["a.py", "A.py"], "one name"),
        (["Sub/a.py", "sub/b.py"], "one name"),
        (["straße.txt", "STRASSE.txt"], "one name"),
        (["ﬁle.txt", "file.txt"], "one name"),
        (["\u212a.txt", "k.txt"], "one name"),  # the sign of the kelvin
        (["a", "a/b"], "both a file and a directory"),
    ],
)
def test_twins_are_refused(paths: list[str], words: str) -> None:
    with pytest.raises(BundleError, match=words):
        check_set(paths)
    with pytest.raises(BundleError, match=words):
        check_set(reversed(paths))


def test_names_that_are_merely_alike_pass() -> None:
    check_set(["a.py", "b.py", "sub/a.py", "sub/b.py", "sub2/a.py", "ab"])


def test_fold_is_stable() -> None:
    for name in ("Straße", "ﬁ", "İ", "ϓ", "Ǆ"):
        assert fold(fold(name)) == fold(name)


def test_shown_neither_forges_lines_nor_floods() -> None:
    assert shown("\n::error::x") == "'\\n::error::x'"
    assert len(shown("x" * 10_000)) < 200
    assert shown("\x1b[2J\u202e").isascii()
