"""An order for versions by PEP 440 and by Semantic Versioning, which plugin.json may mix. Pure."""

from __future__ import annotations

from packaging.version import InvalidVersion, Version

_Part = tuple[int, int, str]
VersionKey = tuple[Version, tuple[_Part, ...]]


def version_key(text: str) -> VersionKey:
    """Return what orders versions: all of them, whichever way each is written.

    PEP 440 decides wherever it can read the version. What only Semantic Versioning can read, such
    as ``1.0.0-alpha.beta``, comes right after the longest beginning that PEP 440 takes for a
    pre-release (``1.0.0-alpha``), or else before all pre-releases of ``1.0.0``.

    Args:
        text: what `sandbox_host.bundle.plugin_json.is_version` accepts.

    Raises:
        ValueError: it is no such version.
    """
    found = _read(text)
    if found is not None:
        return found, ()
    release, _, rest = text.partition("+")[0].partition("-")
    base = _read(f"{release}.dev0" if rest else release)
    if base is None:
        raise ValueError(text)
    parts = rest.split(".") if rest else []
    for count in range(len(parts) - 1, 0, -1):
        before = _read(f"{release}-{'.'.join(parts[:count])}")
        if before is not None and before.is_prerelease:
            return before, tuple(map(_part, parts[count:]))
    return base, tuple(map(_part, parts))


def _read(text: str) -> Version | None:
    try:
        return Version(text)
    except InvalidVersion:
        return None


def _part(text: str) -> _Part:
    """Return what orders one identifier: numbers before words (Semantic Versioning, 11.4)."""
    return (0, int(text), "") if text.isdigit() else (1, 0, text)
