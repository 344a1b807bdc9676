"""What `verify` found: one verdict for each plugin, as plain values that every format is made of.

The texts are raw, as errors and file systems gave them; see `sandbox_host.cli.reports`.
"""

from __future__ import annotations

import posixpath
import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from sandbox_host.cli.exits import Exit, worst

VERIFIED: Final = "verified"
"""The code of a verdict that lets a plugin through; every other one is an error's `code`."""

_NEXT: Final[Mapping[str, str]] = {
    "unsigned": "sandbox-host sign {}",
    "bundle": "sandbox-host check --static {}",
    "manifest": "sandbox-host check --static {}",
}
_NEXT_OTHERWISE: Final = "sandbox-host inspect {}"


@dataclass(frozen=True, slots=True)
class Signer:
    """One key whose signature stands, or claims to stand, in an envelope.

    Attributes:
        key: its id; SHA-256 of the raw key in hexadecimal, unless another tool chose its own.
        label: label and roles in the trust store, for people; "" where it is not there.
        scope: the patterns of plugins that the trust store lets it sign.
    """

    key: str
    label: str = ""
    scope: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class DifferingFile:
    """The first file, by path, that is not what was signed.

    Attributes:
        path: relative to the plugin's root.
        signed: SHA-256 that was signed, in hexadecimal; "" where the file was added.
        found: SHA-256 that was found; "" where the file was removed or renamed.
    """

    path: str
    signed: str
    found: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is said of one plugin.

    Attributes:
        path: where it is, as the command line named it.
        code: `VERIFIED`, or the `code` of the error that refused it.
        exit_code: what `verify` would exit with if it were the only one.
        plugin: its identity; "" unless verified, as are `version` and `digest`.
        digest: root digest of the files that were verified.
        files: how many there are.
        signers: whose signatures counted; of a plugin that is not verified, the keys that its
            envelope claims, of which nothing is proved.
        disregarded: why other signatures of a verified plugin did not count.
        reason: why it was refused; "" if it was not.
        remedy: what to do about that.
        command: the command to run next; "" where there is none.
        anchor: a file of the plugin that a report points at when no file differs; "" for the
            directory or archive itself.
        file: the first file that differs, if files were compared and one does.
        archive: it is one file, whose members nobody can point at.
    """

    path: str
    code: str
    exit_code: Exit
    plugin: str = ""
    version: str = ""
    digest: str = ""
    files: int = 0
    signers: tuple[Signer, ...] = ()
    disregarded: tuple[str, ...] = ()
    reason: str = ""
    remedy: str = ""
    command: str = ""
    anchor: str = ""
    file: DifferingFile | None = None
    archive: bool = False

    @property
    def verified(self) -> bool:
        """Whether this plugin is exactly what trusted keys signed."""
        return self.code == VERIFIED

    @property
    def pointed_at(self) -> str:
        """The path of the file that this verdict is about, or of the plugin."""
        inside = self.file.path if self.file else self.anchor
        return f"{self.path}/{inside}" if inside and not self.archive else self.path


@dataclass(frozen=True, slots=True)
class Report:
    """One run of `verify`.

    Attributes:
        verdicts: in the order in which the plugins were named and found.
        trust_store: where it was read.
        base: the absolute directory that relative paths start from.
        tool_version: of sandbox-host, as Semantic Versioning 2.0 writes it.
    """

    verdicts: tuple[Verdict, ...]
    trust_store: str
    base: str
    tool_version: str

    @property
    def refused(self) -> tuple[Verdict, ...]:
        """The verdicts that are not `VERIFIED`."""
        return tuple(verdict for verdict in self.verdicts if not verdict.verified)

    @property
    def exit_code(self) -> Exit:
        """The gravest of all verdicts' exit codes."""
        return worst(verdict.exit_code for verdict in self.verdicts)

    @property
    def summary(self) -> str:
        """How many there are of each verdict, such as ``3 plugins: 1 verified, 2 unsigned``."""
        counts = Counter(verdict.code for verdict in self.verdicts)
        good = counts.pop(VERIFIED, 0)
        parts = [f"{good} {VERIFIED}", *(f"{n} {code}" for code, n in sorted(counts.items()))]
        noun = "plugin" if len(self.verdicts) == 1 else "plugins"
        return f"{len(self.verdicts)} {noun}: {', '.join(parts)}"

    def relative(self, path: str) -> str:
        """Return `path` relative to `base` if it is below it, and absolute otherwise.

        Nothing is looked up: links on the way are not followed.
        """
        full = posixpath.normpath(posixpath.join(self.base, path))
        full = "/" + full.lstrip("/")  # POSIX leaves two slashes at the beginning alone
        base = posixpath.normpath(self.base).rstrip("/")
        if full == base:
            return "."
        return full[len(base) + 1 :] if full.startswith(f"{base}/") else full


def next_command(code: str, path: str) -> str:
    """Return the command that shows more of a refused plugin, quoted for a shell.

    Args:
        code: of the refusal; "" for no command is not among the answers.
        path: the plugin's; one that begins with a hyphen is kept from being an option.
    """
    safe = f"./{path}" if path.startswith("-") else path
    return _NEXT.get(code, _NEXT_OTHERWISE).format(shlex.quote(safe))
