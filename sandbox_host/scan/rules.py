"""The rules: what each id means, how grave it is, and which permission covers it. A table.

An id keeps its meaning for ever: whoever suppressed or assigned a finding finds it again. The
hundreds: 1 what needs a permission, 2 what works around reading the code, 3 what deceives the
eye, 4 what could not be looked at, 5 what plugin.json asks for in vain.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from sandbox_host.scan.finding import Confidence, Severity

RULES_VERSION: Final = 1
"""Counts up whenever a rule is added, removed or judged otherwise."""


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        id: stable.
        name: for people and scripts, in lower case with hyphens.
        text: what was seen; ``{what}`` stands for the name, path or text of it.
        permission: the permission that covers it, by its name in plugin.json; "" for none.
        seen_by_host: the host itself says it, never the process that reads the source.
    """

    id: str
    name: str
    severity: Severity
    confidence: Confidence
    text: str
    permission: str = ""
    seen_by_host: bool = False


_H, _M, _L = Severity.HIGH, Severity.MEDIUM, Severity.LOW
_SURE, _LIKELY, _PERHAPS = Confidence.HIGH, Confidence.MEDIUM, Confidence.LOW

_ALL: Final = (
    # -- what needs a permission
    Rule(
        "SH101", "network-import", _M, _SURE, "imports {what}, which is for the network", "network"
    ),
    Rule("SH102", "network-use", _H, _SURE, "uses {what}, which is for the network", "network"),
    Rule("SH103", "network-address", _M, _SURE, "connects to {what}", "network"),
    Rule(
        "SH111", "process-import", _M, _SURE, "imports {what}, which starts processes", "subprocess"
    ),
    Rule("SH112", "process-use", _H, _SURE, "uses {what}, which starts processes", "subprocess"),
    Rule("SH121", "thread-import", _L, _LIKELY, "imports {what}, which starts threads", "threads"),
    Rule("SH122", "thread-use", _M, _SURE, "uses {what}, which starts threads", "threads"),
    Rule(
        "SH131",
        "native-import",
        _H,
        _SURE,
        "imports {what}, which calls native code",
        "native_code",
    ),
    Rule("SH132", "native-use", _H, _SURE, "uses {what}, which calls native code", "native_code"),
    Rule("SH140", "environment-read", _M, _SURE, "reads the variable {what}", "env"),
    Rule("SH141", "environment-all", _M, _LIKELY, "reads the environment by {what}", "env"),
    Rule("SH142", "environment-write", _L, _LIKELY, "changes the environment: {what}"),
    Rule("SH150", "file-read", _M, _LIKELY, "opens {what}", "read"),
    Rule("SH151", "file-write", _H, _LIKELY, "writes to {what}", "write"),
    Rule("SH152", "file-climb", _M, _LIKELY, "opens {what}, above where it starts"),
    Rule("SH153", "sensitive-place", _M, _PERHAPS, "names {what}", "read"),
    # -- what works around reading the code
    Rule("SH201", "code-from-text", _H, _SURE, "runs code from text: {what}"),
    Rule("SH202", "code-decoded", _H, _SURE, "runs code that it decodes on the spot: {what}"),
    Rule("SH203", "code-object", _H, _LIKELY, "makes code out of its parts: {what}"),
    Rule("SH211", "import-call", _H, _LIKELY, "calls __import__ for {what}"),
    Rule("SH212", "computed-import", _M, _LIKELY, "imports by {what}"),
    Rule("SH213", "debugger", _M, _LIKELY, "enters a debugger: {what}"),
    Rule("SH214", "import-machinery", _M, _LIKELY, "reaches into how modules are found: {what}"),
    Rule("SH220", "computed-attribute", _L, _PERHAPS, "computes an attribute's name: {what}"),
    Rule("SH221", "computed-name-in-module", _H, _LIKELY, "computes which name to take: {what}"),
    Rule("SH222", "hidden-name", _H, _SURE, "puts a name together from parts: {what}"),
    Rule("SH223", "namespace-item", _M, _LIKELY, "takes a name out of a dictionary: {what}"),
    Rule("SH230", "object-internals", _H, _SURE, "reaches through {what} to what an object hides"),
    Rule("SH231", "class-internals", _L, _LIKELY, "uses {what}"),
    Rule("SH232", "frames", _M, _LIKELY, "reaches into frames by {what}"),
    Rule("SH233", "internals-in-text", _M, _LIKELY, "has {what} in a text"),
    Rule("SH240", "interpreter-hook", _H, _SURE, "hooks into the interpreter: {what}"),
    Rule("SH241", "builtins-changed", _H, _SURE, "replaces the built-in {what}"),
    Rule("SH242", "whole-process", _M, _LIKELY, "acts on the whole process: {what}"),
    Rule("SH243", "stream-or-hook-replaced", _M, _LIKELY, "replaces {what}"),
    Rule("SH244", "sdk-internals", _M, _SURE, "imports {what}, which is not for plugins"),
    Rule("SH251", "marshal", _H, _SURE, "reads byte code: {what}"),
    Rule("SH252", "pickle", _M, _SURE, "reads objects that may run code: {what}"),
    Rule(
        "SH253",
        "pickle-file",
        _L,
        _LIKELY,
        "looks like a pickle, which may run code",
        seen_by_host=True,
    ),
    # -- what deceives the eye
    Rule("SH301", "direction-control", _H, _SURE, "holds {what}: it reads otherwise than it runs"),
    Rule("SH302", "invisible-character", _M, _SURE, "holds {what}, which nobody sees"),
    Rule("SH303", "disguised-name", _H, _LIKELY, "the name {what} passes for another one"),
    Rule("SH304", "name-in-other-form", _H, _SURE, "the name {what} is another one to Python"),
    Rule("SH305", "control-character", _M, _LIKELY, "holds {what}, which a terminal acts on"),
    Rule(
        "SH306",
        "far-to-the-right",
        _M,
        _LIKELY,
        "goes on after 100 blanks, outside of most windows",
    ),
    Rule("SH307", "long-line", _L, _LIKELY, "has a line of {what}"),
    Rule("SH310", "encoded-literal", _M, _LIKELY, "holds a literal that nobody can read: {what}"),
    Rule("SH311", "table-of-bytes", _L, _PERHAPS, "holds a table of bytes: {what}"),
    # -- what could not be looked at
    Rule("SH401", "not-parsed", _M, _SURE, "is not Python of this version: {what}"),
    Rule("SH402", "not-text", _H, _SURE, "is not text in its encoding: {what}"),
    Rule("SH403", "foreign-encoding", _H, _SURE, "says that it is in {what}, not in UTF-8"),
    Rule("SH404", "null-byte", _H, _SURE, "holds a null byte"),
    Rule("SH405", "nested", _H, _SURE, "cannot be parsed: {what}"),
    Rule("SH406", "too-large", _H, _SURE, "was not looked at: {what}", seen_by_host=True),
    Rule(
        "SH407",
        "scan-ended",
        _H,
        _SURE,
        "ended the process that read it: {what}",
        seen_by_host=True,
    ),
    Rule("SH408", "too-much", _H, _LIKELY, "has more places for {what} than are told"),
    Rule("SH409", "too-tangled", _H, _LIKELY, "is too tangled to follow {what}"),
    Rule("SH410", "not-scanned", _H, _SURE, "was not looked at: {what}", seen_by_host=True),
    # -- what plugin.json asks for in vain
    Rule(
        "SH501",
        "permission-unused",
        _L,
        _PERHAPS,
        "asks for {what}, and no source seems to use it",
        seen_by_host=True,
    ),
)

RULES: Final[Mapping[str, Rule]] = MappingProxyType({rule.id: rule for rule in _ALL})
"""By id."""
