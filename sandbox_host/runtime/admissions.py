"""What a host remembers of what it admitted: asked at every admission, and written down after it.

The decisions are in `admission.history`, the file is `history_store`; here is the one way to both,
for `load`, `verify` and whatever else lets a bundle in, with the lines that the journal gets.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final

from sandbox_host.admission import history as decisions
from sandbox_host.admission.changes import Change, changes
from sandbox_host.admission.history import Candidate, Downgrade, History
from sandbox_host.bundle.trust import check_store_version
from sandbox_host.errors import HistoryError, UsageError
from sandbox_host.observe.journal import last_entries
from sandbox_host.runtime.config_digest import config_digests
from sandbox_host.runtime.history_store import HistoryStore

if TYPE_CHECKING:
    from sandbox_host.bundle.trust import TrustStore
    from sandbox_host.bundle.verify import VerifiedBundle
    from sandbox_host.config import HostConfig
    from sandbox_host.observe.journal import Journal

STARTED: Final = "history_started"
"""The journal's line that says that there is a history: one that is gone since was removed."""

_STEP: Final = timedelta(minutes=1)
"""The latest time is kept no more exactly: it is compared with a tolerance of minutes."""


def check_remembered(
    state_dir: Path,
    bundle: VerifiedBundle,
    trust: TrustStore,
    now: datetime,
    downgrades: Collection[Downgrade] = (),
) -> None:
    """Refuse a bundle that the hosts with this state directory would refuse; changes nothing.

    That it asks for more than the version before it is no refusal here: `difference` tells that.

    Args:
        state_dir: of those hosts; where there is no history, nothing speaks against a bundle.
        bundle: verified with `trust`.
        trust: the trust store.
        now: the moment that it was verified for.
        downgrades: what the operator lets in.

    Raises:
        RollbackError: it is older than one that was admitted, or another of its version, or the
            clock was set back.
        TrustStoreError: the trust store is older than one that was used.
        HistoryError: the history cannot be read.
    """
    _check(HistoryStore(state_dir).read() or History(), bundle, trust, now, downgrades)


def check_store(state_dir: Path, path: Path, store: TrustStore) -> None:
    """Refuse a trust store that is to take the place of an older one, and is older itself.

    Args:
        state_dir: of the hosts that remember.
        path: of the store that they read.
        store: what is to stand there.

    Raises:
        TrustStoreError: a newer one was used by a host.
        HistoryError: the history cannot be read.
    """
    history = HistoryStore(state_dir).read() or History()
    check_store_version(store, history.stores.get(str(path)))


def difference(state_dir: Path, bundle: VerifiedBundle) -> tuple[Change, ...]:
    """Return how what a bundle asks for differs from the version of it that was admitted last.

    Raises:
        HistoryError: the history cannot be read.
    """
    return _difference(Candidate.of(bundle), HistoryStore(state_dir).read() or History())


def _difference(candidate: Candidate, history: History) -> tuple[Change, ...]:
    record = history.plugins.get(candidate.identity)
    return changes(record.approved, candidate.asks) if record else ()


def _check(
    history: History,
    bundle: VerifiedBundle,
    trust: TrustStore,
    now: datetime,
    downgrades: Collection[Downgrade],
) -> None:
    check_store_version(trust, history.stores.get(trust.origin))
    decisions.check_history(Candidate.of(bundle), history, now, downgrades)


class Admissions:
    """The memory of one host.

    Args:
        state_dir: where it is kept.
        journal: where it is written down.
    """

    def __init__(self, state_dir: Path, journal: Journal) -> None:
        self._store = HistoryStore(state_dir)
        self._journal = journal
        self._started = False

    def start(self, config: HostConfig) -> None:
        """Make the history where there is none yet, and compare the configuration with the last.

        Raises:
            HistoryError: it cannot be used, or was removed.
            JournalError: the journal cannot be written.
        """
        digests = config_digests(config)
        with self._store.change() as draft:
            if draft.before is None:
                self._begin()
            elif not last_entries(self._journal.path, STARTED, 1):
                # Of a journal that was begun anew: it, too, is to know of the history.
                self._journal.append(STARTED)
            before = draft.history.config
            names = sorted(n for n in {*digests, *before} if digests.get(n) != before.get(n))
            if before and names:
                self._journal.append("configuration_changed", detail=", ".join(names))
            draft.history = replace(draft.history, config=MappingProxyType(digests))
        self._started = True

    def _begin(self) -> None:
        if last_entries(self._journal.path, STARTED, 1):
            raise self._missing("the journal says that there was one")
        self._journal.append(STARTED)

    def _missing(self, why: str) -> HistoryError:
        return HistoryError(
            f"The history {self._store.path} is missing, and {why}: without it, nothing tells "
            "older versions of plugins from newer.",
            remedy="Put back the one of your last backup; or begin another with `sandbox-host "
            "history new --reason TEXT`.",
        )

    def _known(self, history: History | None) -> History:
        """Return what was read; once there was a history, there must be one."""
        if history is None and self._started:
            raise self._missing("it was there when this host was opened")
        return history or History()

    def check(
        self,
        bundle: VerifiedBundle,
        trust: TrustStore,
        now: datetime,
        downgrades: Collection[Downgrade] = (),
    ) -> None:
        """Refuse what history speaks against, before anything else is decided; changes nothing.

        Raises:
            RollbackError: as `check_remembered`.
            TrustStoreError: likewise.
            HistoryError: likewise.
        """
        _check(self._known(self._store.read()), bundle, trust, now, downgrades)

    def consider(
        self,
        bundle: VerifiedBundle,
        trust: TrustStore,
        now: datetime,
        downgrades: Collection[Downgrade] = (),
    ) -> None:
        """Refuse or hold a bundle as `admit` does; changes nothing.

        Raises:
            HeldError, RollbackError, TrustStoreError, HistoryError: as `admit`.
        """
        before = _with_store(self._known(self._store.read()), trust)
        decisions.admitted(Candidate.of(bundle), before, now, downgrades, bundle.origin)

    def admit(
        self,
        bundle: VerifiedBundle,
        trust: TrustStore,
        now: datetime,
        downgrades: Collection[Downgrade] = (),
    ) -> None:
        """Remember a bundle that is admitted, unless it is refused or held for what was before.

        Raises:
            HeldError: it asks for more than the version before it.
            RollbackError: as `check_remembered`.
            TrustStoreError: likewise.
            HistoryError: the history cannot be read or written.
            JournalError: the journal cannot be written.
        """
        candidate = Candidate.of(bundle)
        with self._store.change() as draft:
            self._known(draft.before)
            before = _with_store(draft.history, trust)
            after = decisions.admitted(candidate, before, now, downgrades, bundle.origin)
            self._tell_store(draft.history, trust)
            self._tell_downgrade(candidate, before, after, downgrades)
            if not _only_later(draft.history, after):
                draft.history = after
                self._sync_if_new(draft.before, after)

    def _tell_store(self, before: History, trust: TrustStore) -> None:
        known, mark = before.stores.get(trust.origin), trust.mark
        if known is not None and known != mark:
            was = f"version {known.version}, SHA-256 {known.digest}"
            detail = f"{trust.origin}: {was}, is now version {mark.version}, {mark.digest}"
            self._journal.append("trust_store_changed", detail=detail)

    def _tell_downgrade(
        self,
        candidate: Candidate,
        before: History,
        after: History,
        downgrades: Collection[Downgrade],
    ) -> None:
        name, release = candidate.identity, candidate.release
        record, was = after.plugins.get(name), before.plugins.get(name)
        word = decisions.permission_for(candidate, downgrades)
        if word is None or record is None or was is None or record.exception == was.exception:
            return
        if record.exception is not None:
            told = f"{release.version}, {release.digest}, after {record.highest.version}"
            self._journal.append("downgrade_allowed", name, f"{told}: {word.reason}")

    def _sync_if_new(self, before: History | None, after: History) -> None:
        """What history has for good, the journal has as well."""
        if before is not None and before.plugins != after.plugins:
            self._journal.sync()

    def approve(
        self, bundle: VerifiedBundle, trust: TrustStore, now: datetime, shown: Collection[Change]
    ) -> None:
        """Remember that the operator approved what an update asks for more.

        Args:
            bundle: the update; the approval is for its digest alone.
            trust: the trust store that it was verified with.
            now: the moment that it was verified for.
            shown: the differences that the operator saw.

        Raises:
            UsageError: there is nothing to approve, or it is something else by now.
            RollbackError: as `check_remembered`.
        """
        candidate = Candidate.of(bundle)
        with self._store.change() as draft:
            _check(draft.history, bundle, trust, now, ())
            if tuple(shown) != _difference(candidate, draft.history):
                text = f"What {candidate.identity} asks for differs from what was shown."
                raise UsageError(text, remedy="Another version was loaded meanwhile; look again.")
            told = "; ".join(str(one) for one in shown if one.wider)
            if not told:
                text = f"There is nothing to approve: {candidate.identity} asks for no more."
                raise UsageError(text, remedy="Load it.")
            release = candidate.release
            self._journal.append(
                "approved", candidate.identity, f"{release.version}, {release.digest}: {told}"
            )
            draft.history = decisions.approve(candidate, draft.history)

    # -- an operator's acts -------------------------------------------------------------------

    def accept_clock(self, now: datetime, reason: str) -> None:
        """Take the time that it is now for the latest seen.

        Raises:
            HistoryError: the history cannot be read or written.
            JournalError: the journal cannot be written.
        """
        with self._store.change() as draft:
            latest = draft.history.latest
            self._journal.append("clock_accepted", detail=f"after {latest}: {reason}")
            draft.history = replace(draft.history, latest=now)

    def accept_store(self, trust: TrustStore, reason: str) -> None:
        """Take a trust store for the newest, whatever its version.

        Raises:
            HistoryError: the history cannot be read or written.
            JournalError: the journal cannot be written.
        """
        mark = trust.mark
        detail = f"{trust.origin}: version {mark.version}, {mark.digest}: {reason}"
        with self._store.change() as draft:
            self._journal.append("trust_store_accepted", detail=detail)
            stores = {**draft.history.stores, trust.origin: mark}
            draft.history = replace(draft.history, stores=MappingProxyType(stores))

    def forget(self, identity: str, reason: str) -> None:
        """Remember nothing of a plugin any more.

        Raises:
            UsageError: nothing is remembered of it.
            HistoryError: the history cannot be read or written.
            JournalError: the journal cannot be written.
        """
        with self._store.change() as draft:
            plugins = dict(draft.history.plugins)
            record = plugins.pop(identity, None)
            if record is None:
                text = f"Nothing is remembered of a plugin {identity}."
                raise UsageError(text, remedy="See `sandbox-host history list`.")
            highest = record.highest
            self._journal.append(
                "forgotten", identity, f"{highest.version}, {highest.digest}: {reason}"
            )
            draft.history = replace(draft.history, plugins=MappingProxyType(plugins))

    def start_new(self, now: datetime, reason: str) -> Path | None:
        """Put the history aside and begin another; return where the old one is.

        Raises:
            HistoryError: it cannot be put aside.
            JournalError: the journal cannot be written.
        """
        self._journal.append(STARTED, detail=f"anew: {reason}")
        return self._store.put_aside(now)


def _with_store(history: History, trust: TrustStore) -> History:
    """Return the history with the mark of the trust store that is used now."""
    mark = check_store_version(trust, history.stores.get(trust.origin))
    return replace(history, stores=MappingProxyType({**history.stores, trust.origin: mark}))


def _only_later(before: History, after: History) -> bool:
    """Tell whether nothing but a moment has passed, for which no file is written."""
    if before.latest is None or after.latest is None:
        return before == after
    return after == replace(before, latest=after.latest) and after.latest - before.latest < _STEP
