"""bandit, an optional extra, for a second opinion: installed for the host, run in the sandbox.

Its files and those of what it needs are copied into a plugin environment of their own, which the
process that reads the sources can read and nothing else.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Final

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from sandbox_host.errors import ConfigError
from sandbox_host.runtime.scanner import ConfinedReader
from sandbox_host.runtime.workspace import remove_tree
from sandbox_host.scan.bandit import read_issues, unread
from sandbox_host.scan.finding import Finding, in_order
from sandbox_host.scan.internal import bandit_examiner
from sandbox_host.scan.scan import MAX_SOURCE_BYTES, is_source

if TYPE_CHECKING:
    from sandbox_host.config import HostConfig

BANDIT: Final = "bandit"
_MAX_DISTRIBUTIONS: Final = 40


@contextmanager
def bandit_reader(config: HostConfig) -> Iterator[ConfinedReader[Finding]]:
    """Yield a reader that has bandit look at sources.

    Raises:
        ConfigError: bandit is not installed beside the host, or cannot be copied.
    """
    needed = _needed()
    try:
        root = Path(tempfile.mkdtemp(prefix="sandbox-host-bandit-")).resolve()
    except OSError as error:
        raise _uncopied(error) from error
    try:
        environment = _copy(needed, root)
        extra = {"plugin_environment": environment}
        with ConfinedReader(config, bandit_examiner, read_issues, _failed, extra=extra) as reader:
            yield reader
    finally:
        remove_tree(root)


def bandit_findings(
    files: Mapping[str, bytes], reader: ConfinedReader[Finding]
) -> tuple[Finding, ...]:
    """Return what bandit finds in the sources of one plugin, sorted.

    Args:
        files: all files of the plugin by path.
        reader: of `bandit_reader`.

    Raises:
        SandboxHostError: this machine cannot confine the process that reads the sources.
    """
    sources = {path: files[path] for path in sorted(files) if is_source(path)}
    small = {path: data for path, data in sources.items() if len(data) <= MAX_SOURCE_BYTES}
    large = [unread(path, "it is too large") for path in sources if path not in small]
    return in_order({*reader(small), *large})


def _failed(path: str, _rule: str, reason: str) -> Finding:
    return unread(path, reason)


def _needed() -> list[metadata.Distribution]:
    """Return bandit and everything that it requires, as it is installed beside the host."""
    found: dict[str, metadata.Distribution] = {}
    wanted = [BANDIT]
    while wanted and len(found) < _MAX_DISTRIBUTIONS:
        name = canonicalize_name(wanted.pop())
        if name in found:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError as error:
            raise ConfigError(
                f"bandit is asked for, and {name} is not installed in the environment that "
                "sandbox-host runs in.",
                remedy='Install the optional extra: pip install "sandbox-host[bandit]"; or leave '
                "out --bandit.",
            ) from error
        wanted += _required(found[name])
    return list(found.values())


def _required(distribution: metadata.Distribution) -> list[str]:
    names = []
    for text in distribution.requires or ():
        try:
            requirement = Requirement(text)
        except InvalidRequirement:
            continue
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            names.append(requirement.name)
    return names


def _copy(distributions: list[metadata.Distribution], root: Path) -> Path:
    """Copy distributions, so that plugins that have user ids of their own can read them."""
    environment = root / "environment"
    try:
        root.chmod(0o755)
        environment.mkdir()
        for distribution in distributions:
            for file in distribution.files or ():
                source = str(distribution.locate_file(file))
                # Scripts lie outside, above where the packages are.
                if file.is_absolute() or ".." in file.parts or not os.path.isfile(source):
                    continue
                target = environment / file
                target.parent.mkdir(parents=True, exist_ok=True)
                # With its time, by which the byte code beside it is known to be its own.
                shutil.copy2(source, target)
        for path in (environment, *environment.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)
    except OSError as error:
        raise _uncopied(error) from error
    return environment


def _uncopied(error: OSError) -> ConfigError:
    return ConfigError(
        f"bandit cannot be copied to {tempfile.gettempdir()}: {error}.",
        remedy="Set TMPDIR to a directory with room, or leave out --bandit.",
    )
