"""Plugins whose signature is a plain digest, and who believes it: for tests without keys."""

from __future__ import annotations

import hashlib
from pathlib import Path

from sandbox_host.catalog.discover import DiscoveredState
from sandbox_host.catalog.roster import Judged


def digest_of(directory: Path) -> str:
    """Return what `seal` signs: everything but the seal."""
    files = sorted(p for p in directory.rglob("*") if p.is_file() and p.name != "plugin.dsse.json")
    digest = hashlib.sha256()
    for file in files:
        digest.update(str(file.relative_to(directory)).encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()


def seal(directory: Path) -> Path:
    """Write the seal into a plugin."""
    (directory / "plugin.dsse.json").write_text(digest_of(directory))
    return directory


def write(directory: Path, content: str = "1") -> Path:
    """Write a sealed plugin, over what is there."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "plugin.json").write_text(directory.name)
    (directory / "main.py").write_text(content)
    return seal(directory)


class SealJudge:
    """Believes what is sealed, and counts how often it was asked."""

    def __init__(self) -> None:
        self.switched_off: frozenset[str] = frozenset()
        self.fault: Exception | None = None
        self.asked: list[str] = []
        self.renewed = False

    def renew(self) -> bool:
        """Say what the test wants said, once."""
        renewed, self.renewed = self.renewed, False
        return renewed

    def __call__(self, path: Path) -> Judged:
        """Return the verdict."""
        self.asked.append(path.name)
        if self.fault is not None:
            raise self.fault
        try:
            sealed = (path / "plugin.dsse.json").read_text() == digest_of(path)
        except OSError:
            sealed = False
        if not sealed:
            state, reason = DiscoveredState.UNVERIFIED, "not sealed"
            return Judged(path=path, state=state, reason=reason, code="unsigned")
        identity = (path / "plugin.json").read_text()
        off = identity in self.switched_off
        state = DiscoveredState.DISABLED if off else DiscoveredState.FOUND
        return Judged(path=path, state=state, identity=identity, digest=digest_of(path))
