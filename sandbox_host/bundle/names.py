"""Which file names a bundle may hold, whatever file system it is unpacked on.

A name is refused when it could mean another file elsewhere (letter case, Unicode forms, reserved
device names), could deceive a reader (invisible characters, characters that reverse the
direction of writing), or is the droppings of a tool. Droppings are called what they are, because
their author did not put them there on purpose.

The rules follow the Unicode and file-name advice of UTS #39 and UAX #15, and the reserved names
of the Windows API ("Naming Files, Paths, and Namespaces").
"""

from __future__ import annotations

import fnmatch
import functools
import re
import unicodedata
from collections.abc import Iterable
from typing import Final, NoReturn

from sandbox_host.bundle.contents import ENVELOPE_NAME
from sandbox_host.errors import BundleError

MAX_COMPONENT_BYTES: Final = 255
"""NAME_MAX of every common file system, in UTF-8 bytes."""

MAX_PATH_BYTES: Final = 1_024
"""PATH_MAX of the strictest platform (macOS), in UTF-8 bytes."""

MAX_DEPTH: Final = 16

_CACHE_ADVICE = "Delete it."
_DROPPINGS: Final = (
    (
        ("__pycache__", "*.pyc", "*.pyo"),
        "Python's byte-code cache",
        "Delete it, or set PYTHONDONTWRITEBYTECODE=1 while you work in this directory.",
    ),
    ((".git",), "a Git repository", "Sign an export of it (`git archive`), not the clone."),
    ((".hg", ".svn", ".bzr"), "version-control data", "Sign an export, not the working copy."),
    (
        (".venv", "pyvenv.cfg"),
        "a virtual environment",
        "Keep it outside the plugin's directory; plugins use the host's plugin environment.",
    ),
    (("*.egg-info", "*.dist-info"), "the metadata of an installed package", _CACHE_ADVICE),
    (
        (".mypy_cache", ".ruff_cache", ".pytest_cache", ".hypothesis", ".tox", ".nox"),
        "the cache of a development tool",
        _CACHE_ADVICE,
    ),
    ((".coverage", ".coverage.*"), "coverage data", _CACHE_ADVICE),
    ((".ipynb_checkpoints",), "Jupyter's checkpoints", _CACHE_ADVICE),
    (("node_modules",), "installed Node.js packages", _CACHE_ADVICE),
    ((".idea", ".vscode"), "an editor's settings", "Keep them outside the plugin's directory."),
    (
        ("*~", "#*#", ".#*", "*.swp", "*.swo", "*.swx", "*.orig", "*.rej", "*.bak"),
        "an editor's or merge tool's left-over",
        _CACHE_ADVICE,
    ),
    ((".ds_store", "._*", ".appledouble"), "macOS Finder metadata", _CACHE_ADVICE),
    (("thumbs.db", "desktop.ini"), "Windows Explorer metadata", _CACHE_ADVICE),
    ((".nfs*", ".fuse_hidden*"), "a deleted file that is still open", "Close its program first."),
    (
        (".env", ".netrc", ".pypirc"),
        "a file that usually holds secrets",
        "Keep secrets out of bundles: everyone who gets the plugin can read them.",
    ),
)
_DROPPING: Final = re.compile(
    "|".join(fnmatch.translate(pattern) for patterns, _, _ in _DROPPINGS for pattern in patterns)
)
# Windows drops the spaces before the first dot when it looks for a device: "nul .txt" is one.
_RESERVED: Final = re.compile(
    r"(?i:con|prn|aux|nul|conin\$|conout\$|(?:com|lpt)[0-9¹²³]) *(?:\..*)?"
)
# FAT and NTFS give every longer name such a second one: "PLUGIN~1.JSO" can be plugin.json.
_SHORT_NAME: Final = re.compile(r"[^.]{1,7}~[0-9]{1,6}(?:\.[^.]{0,3})?")
_UNPORTABLE: Final = frozenset('\\:*?"<>|')
# Characters that show as nothing although `str.isprintable` lets them pass: fillers, joiners and
# variation selectors (Default_Ignorable_Code_Point), and the empty braille pattern.
_INVISIBLE: Final = re.compile(
    "[\u034f\u115f\u1160\u17b4\u17b5\u180b-\u180f\u2800\u3164\ufe00-\ufe0f\uffa0\U000e0100-\U000e01ef]"
)
# They look like "/" or "\\" in most fonts, so that one file reads as a file in a directory.
_SLASH_ALIKE: Final = frozenset("\u2044\u2215\u2216\u2571\u2572\u27cb\u27cd\u29f5\u29f8\u29f9")
_SHOWN_CHARACTERS: Final = 160


def shown(text: str) -> str:
    r"""Return `text` quoted for a message: ASCII only, escaped, two lines long at most.

    A file called ``\n::error`` must not forge a line of somebody's log.
    """
    if len(text) > _SHOWN_CHARACTERS:
        text = text[:_SHOWN_CHARACTERS] + "..."
    return ascii(text)


def check_path(path: str) -> None:
    """Check one relative POSIX path of a bundle.

    Raises:
        BundleError: the path is absolute, climbs, is too long or too deep, or one of its
            components breaks a rule; the message says which and what to do.
    """
    check_length(path)
    components = path.split("/")
    if len(components) > MAX_DEPTH:
        raise BundleError(f"the path {shown(path)} is deeper than {MAX_DEPTH} components.")
    for component in components:
        check_component(component, path)


def check_length(path: str) -> None:
    """Check that a path fits every platform's PATH_MAX.

    Raises:
        BundleError: it has more than 1,024 bytes in UTF-8.
    """
    if len(path) > MAX_PATH_BYTES or len(path.encode("utf-8", "replace")) > MAX_PATH_BYTES:
        raise BundleError(
            f"the path {shown(path)} is longer than {MAX_PATH_BYTES} bytes.",
            remedy="Use shorter names or fewer levels, and sign again.",
        )


def check_component(name: str, path: str) -> None:
    """Check one component of `path`, which is named in the message.

    Raises:
        BundleError: the name breaks a rule.
    """
    reason = _fault(name)
    if reason:
        raise BundleError(
            f"the name {shown(path)} is refused: {reason}.", remedy="Rename it and sign again."
        )
    folded = fold(name)
    if _DROPPING.match(folded):
        _refuse_dropping(folded, path)
    if folded == ENVELOPE_NAME and path != ENVELOPE_NAME:
        raise BundleError(
            f"{shown(path)} has the name of the signed envelope, which is one file at the root.",
            remedy="Rename it, and sign again.",
        )


def check_set(paths: Iterable[str]) -> None:
    """Check that no two of `paths` can be one file, or a file and a directory, on some system.

    Two names are twins when they differ only in letter case or in Unicode form, at any level.

    Raises:
        BundleError: there are such twins; the message names both.
    """
    files: set[str] = set()
    directories: set[str] = set()
    for path in paths:
        files.add(path)
        parent = path.rpartition("/")[0]
        while parent and parent not in directories:
            directories.add(parent)
            parent = parent.rpartition("/")[0]
    clash = files & directories
    if clash:
        raise BundleError(f"{shown(min(clash))} is both a file and a directory.")
    seen: dict[str, str] = {}
    for path in sorted(files | directories):
        twin = seen.setdefault(fold(path), path)
        if twin != path:
            raise BundleError(
                f"{shown(twin)} and {shown(path)} are one name on a file system that ignores "
                "letter case or Unicode forms.",
                remedy="Rename one of them, and sign again.",
            )


def fold(name: str) -> str:
    """Return the form in which twins are equal: NFKC of the case-folded NFKD form."""
    if name.isascii():
        return name.lower()
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKD", name).casefold())


def _refuse_dropping(folded: str, path: str) -> NoReturn:
    """Refuse what a tool left behind, by the name of the tool."""
    what, remedy = next(
        (what, remedy)
        for patterns, what, remedy in _DROPPINGS
        if any(fnmatch.fnmatchcase(folded, pattern) for pattern in patterns)
    )
    raise BundleError(f"{shown(path)} is {what}; it does not belong in a plugin.", remedy=remedy)


@functools.lru_cache(maxsize=4_096)
def _fault(name: str) -> str:
    """Return why a component is refused, or "".

    Remembered, because the same few are in most paths, and each path is checked wherever it comes
    from; a component that Unicode makes 18 times as long in another form takes its time.
    """
    return _deceptive(name) or _unportable(name)


def _deceptive(name: str) -> str:
    """Return why `name` is not what a reader takes it for, or ""."""
    if name in ("", ".", ".."):
        return "a component is empty, '.' or '..'"
    try:
        encoded = name.encode()
    except UnicodeEncodeError:
        return "it is not valid UTF-8"
    if len(encoded) > MAX_COMPONENT_BYTES:
        return f"a component is longer than {MAX_COMPONENT_BYTES} bytes"
    if not name.isprintable() or _INVISIBLE.search(name):
        return "it holds a control, invisible or direction-changing character"
    if not unicodedata.is_normalized("NFC", name):
        return "it is not in Unicode normal form C"
    return "" if name.isascii() else _misleading(name)


def _misleading(name: str) -> str:
    """Return how a name with other than ASCII characters misleads the eye or a converter, or ""."""
    if unicodedata.category(name[0]).startswith("M"):
        return "it begins with a mark that is drawn over the character before it"
    if _SLASH_ALIKE.intersection(name):
        return "it holds a character that looks like a slash"
    # Converting to an older character set makes a slash of U+FF0F and dots of U+2025.
    compatible = unicodedata.normalize("NFKC", name)
    reason = _unportable(compatible) if compatible != name else ""
    return f"converted to plain characters, {reason}" if reason else ""


def _unportable(name: str) -> str:
    """Return why `name` cannot exist, or means something else, on another platform, or ""."""
    bad = sorted(_UNPORTABLE.intersection(name))
    if bad:
        return f"it holds {shown(bad[0])}, which not every platform allows in a name"
    if "/" in name:
        return "a component holds a slash"
    if name[-1] in ". ":
        return "it ends with a dot or a space, which Windows drops"
    if name[0] == " ":
        return "it begins with a space"
    if name[0] == "-":
        return "it begins with a dash, which commands take for an option"
    if _RESERVED.fullmatch(name):
        return "Windows reserves it for a device"
    if _SHORT_NAME.fullmatch(name):
        return "Windows may have it as the short name of another file"
    return ""
