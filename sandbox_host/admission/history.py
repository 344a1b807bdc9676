"""What a host remembers of plugins, and what it refuses or holds because of that. Pure.

Refused are older versions, other files under a version that it knows, and a clock that was set
back; held is an update that asks for more.

A plugin has a history from the first release on that is admitted here: a bundle for which a key
with the role "publisher" vouches. Before that, bundles of developer keys alone come and go as their
author changes them, and nothing of them is remembered. From then on the history binds whoever
signs: otherwise an old release would pass as soon as somebody took the publisher's signature off
it and a developer's was left.

The version is compared with the highest that was admitted, the digest with that version's: over the
files, not over the envelope, so that the same files signed anew are the same. An operator's
`Downgrade` lets one version in once more, with the digest that it has then, until anything else
of that plugin is admitted.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.admission.changes import Asks, Change, wider
from sandbox_host.admission.versions import version_key
from sandbox_host.errors import ClockError, EquivocationError, HeldError, RollbackError
from sandbox_host.reading import quoted

if TYPE_CHECKING:
    from sandbox_host.bundle.trust import StoreMark
    from sandbox_host.bundle.verify import VerifiedBundle

CLOCK_TOLERANCE: Final = timedelta(minutes=5)
"""So far a clock may be set back: what keeps machines' clocks together does that, by seconds."""

PUBLISHER: Final = "publisher"
_MAX_SHOWN: Final = 8
_EMPTY: Final[Mapping[str, Any]] = MappingProxyType({})


@dataclass(frozen=True, slots=True)
class Release:
    """A version, and the root digest of its files in hexadecimal."""

    version: str
    digest: str


@dataclass(frozen=True, slots=True)
class Candidate:
    """What is about to be admitted.

    Attributes:
        released: a publisher's key vouches for it.
        asks: what plugin.json asks for.
    """

    identity: str
    release: Release
    released: bool
    asks: Asks

    @classmethod
    def of(cls, bundle: VerifiedBundle) -> Candidate:
        """Return what history asks of a verified bundle."""
        manifest = bundle.manifest
        return cls(
            identity=manifest.identity,
            release=Release(manifest.version, bundle.root_digest),
            released=any(PUBLISHER in key.roles for key in bundle.signers),
            asks=Asks.of(manifest),
        )


@dataclass(frozen=True, slots=True)
class Downgrade:
    """An operator's word that one version may be loaded although history speaks against it.

    Attributes:
        plugin: its identity.
        version: that of the bundle, in whichever spelling.
        reason: for whoever reads the journal.
    """

    plugin: str
    version: str
    reason: str


@dataclass(frozen=True, slots=True)
class Record:
    """What is remembered of one plugin.

    Attributes:
        highest: the highest version that was admitted.
        approved: what the last one that was admitted asked for.
        exception: an older one that the operator let in, until anything else is admitted.
        approval: root digest of an update that the operator approved, until it is admitted; or "".
    """

    highest: Release
    approved: Asks
    exception: Release | None = None
    approval: str = ""


@dataclass(frozen=True, slots=True)
class History:
    """What one host remembers, kept between its runs.

    Attributes:
        plugins: by identity.
        latest: the latest time seen, or None.
        stores: the marks of trust stores, by path.
        config: digests of the configuration's fields at the last start, by name.
    """

    plugins: Mapping[str, Record] = field(default_factory=lambda: _EMPTY)
    latest: datetime | None = None
    stores: Mapping[str, StoreMark] = field(default_factory=lambda: _EMPTY)
    config: Mapping[str, str] = field(default_factory=lambda: _EMPTY)

    def with_plugin(self, identity: str, record: Record) -> History:
        """Return the same with another record of one plugin."""
        return replace(self, plugins=MappingProxyType({**self.plugins, identity: record}))


def check_history(
    candidate: Candidate,
    history: History,
    now: datetime,
    downgrades: Collection[Downgrade] = (),
) -> History:
    """Return the history with the candidate in it, or refuse it.

    What it asks for is not looked at: `check_approval` does that.

    Args:
        candidate: verified.
        history: what is remembered.
        now: the moment, with a time zone.
        downgrades: what the operator lets in.

    Raises:
        ClockError: the clock was set back.
        RollbackError: an older version than one that was admitted.
        EquivocationError: the version of one that was admitted, and other files.
    """
    check_clock(history, now)
    seen = replace(history, latest=max(now, history.latest or now))
    record = history.plugins.get(candidate.identity)
    if record is None:
        if not candidate.released:
            return seen
        return seen.with_plugin(candidate.identity, Record(candidate.release, candidate.asks))
    after = _admitted(candidate, record, downgrades)
    return seen.with_plugin(candidate.identity, after)


def check_clock(history: History, now: datetime) -> None:
    """Refuse a moment long before the latest that was seen.

    Raises:
        ClockError: it is.
    """
    latest = history.latest
    if latest is not None and now < latest - CLOCK_TOLERANCE:
        raise ClockError(
            f"This machine's clock says {_shown(now)}, and this host has seen {_shown(latest)}: "
            "with the clock set back, keys and bundles that have expired would count again.",
            remedy="Set the clock. If it is right, and was wrong before: `sandbox-host history "
            "accept clock --reason TEXT`.",
        )


def _admitted(candidate: Candidate, record: Record, downgrades: Collection[Downgrade]) -> Record:
    """Return the record once the candidate is admitted."""
    release, highest = candidate.release, record.highest
    asked, known = version_key(release.version), version_key(highest.version)
    if asked > known:
        return replace(record, highest=release, exception=None)
    same = asked == known and release.digest == highest.digest
    if same:
        return replace(record, exception=None)
    if record.exception and _is(release, record.exception):
        return record
    if permission_for(candidate, downgrades) is not None:
        return replace(record, exception=release)
    raise _refusal(candidate, highest, older=asked < known)


def _is(one: Release, other: Release) -> bool:
    same_version = version_key(one.version) == version_key(other.version)
    return same_version and one.digest == other.digest


def permission_for(candidate: Candidate, downgrades: Collection[Downgrade]) -> Downgrade | None:
    """Return the operator's word for this version of this plugin, if it was given."""
    asked = version_key(candidate.release.version)
    for one in downgrades:
        if one.plugin == candidate.identity and version_key(one.version) == asked:
            return one
    return None


def _refusal(candidate: Candidate, highest: Release, *, older: bool) -> RollbackError:
    name, release = candidate.identity, candidate.release
    option = f"`run` and `call` take `--allow-downgrade {name} {release.version} REASON`"
    if older:
        return RollbackError(
            f"Plugin {name} {release.version} is older than {highest.version}, which was admitted "
            "on this host: an old release comes back with the faults that were mended since.",
            remedy=f"Load the newest release; if you mean this one, {option}.",
        )
    return EquivocationError(
        f"Plugin {name} {release.version} has the digest {release.digest}, and the "
        f"{highest.version} that was admitted on this host has {highest.digest}: one version with "
        "two contents.",
        remedy="Ask its publisher which is the real one, and have changes released under a version "
        f"of their own; if you mean this one, {option}.",
    )


# -- what it asks for -----------------------------------------------------------------------------


def asks_more(candidate: Candidate, history: History) -> tuple[Change, ...]:
    """Return what a candidate asks for more than the last of its plugin that was admitted."""
    record = history.plugins.get(candidate.identity)
    return wider(record.approved, candidate.asks) if record else ()


def check_approval(candidate: Candidate, history: History, origin: str) -> None:
    """Hold an update that asks for more, unless the operator has approved exactly it.

    The first release of a plugin is approved by the operator's grants, without which it is not
    admitted at all.

    Args:
        candidate: verified.
        history: what is remembered.
        origin: where the candidate is, for the message.

    Raises:
        HeldError: it asks for more than the last one that was admitted, and nobody approved that.
    """
    more = asks_more(candidate, history)
    if more and history.plugins[candidate.identity].approval != candidate.release.digest:
        raise _held(candidate, more, origin)


def admitted(
    candidate: Candidate,
    history: History,
    now: datetime,
    downgrades: Collection[Downgrade] = (),
    origin: str = "",
) -> History:
    """Return the history once the candidate is admitted, or refuse it, or hold it.

    Args:
        candidate: verified.
        history: what is remembered.
        now: the moment, with a time zone.
        downgrades: what the operator lets in.
        origin: where the candidate is, for messages.

    Raises:
        RollbackError: as `check_history`.
        HeldError: as `check_approval`.
    """
    after = check_history(candidate, history, now, downgrades)
    check_approval(candidate, history, origin)
    record = after.plugins.get(candidate.identity)
    if record is None:
        return after
    approved = replace(record, approved=candidate.asks, approval="")
    return after.with_plugin(candidate.identity, approved)


def approve(candidate: Candidate, history: History) -> History:
    """Return the history with the operator's approval of exactly this update."""
    record = history.plugins[candidate.identity]
    approved = replace(record, approval=candidate.release.digest)
    return history.with_plugin(candidate.identity, approved)


def _held(candidate: Candidate, more: tuple[Change, ...], origin: str) -> HeldError:
    name, told = candidate.identity, tuple(str(one) for one in more)
    shown = "; ".join(told[:_MAX_SHOWN])
    rest = f"; and {len(told) - _MAX_SHOWN} more" if len(told) > _MAX_SHOWN else ""
    return HeldError(
        f"Plugin {name} {candidate.release.version} is held: it asks for more than the version of "
        f"it that was admitted last: {shown}{rest}.",
        plugin=name,
        changes=told,
        remedy=f"`sandbox-host approve {quoted(origin, 200)}` shows the difference and asks you.",
    )


def _shown(moment: datetime) -> str:
    return moment.astimezone(UTC).replace(microsecond=0).isoformat().replace("+00:00", "Z")
