"""Every error a user of the host can meet, in one tree.

Each class has a stable ``code`` for scripts, and its text is one paragraph: what, where, why,
and, as ``remedy``, what to do next. Errors named *Local* elsewhere are our bugs; errors that a
plugin causes derive from `PluginError`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sandbox_host.model import CallUsage, Denial


class SandboxHostError(Exception):
    """Base of all errors raised by `sandbox_host`.

    Attributes:
        code: stable identifier of the kind of error, for scripts and the journal.
        remedy: what the reader can do next; empty where there is nothing to do.
    """

    code = "error"

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message} {self.remedy}" if self.remedy else self.message


class ConfigError(SandboxHostError):
    """The operator's configuration cannot be used."""

    code = "config"


class JournalError(SandboxHostError):
    """The journal cannot be written, or what it holds is not what the host wrote."""

    code = "journal"


class UsageError(SandboxHostError):
    """The API was used in a way it does not allow (host closed, wrong thread, wrong type)."""

    code = "usage"


# -- before anything of a plugin runs ---------------------------------------------------------


class ControlError(SandboxHostError):
    """The running service cannot be reached or started, or does not take what it was sent."""

    code = "control"


class RemoteError(ControlError):
    """The running service answered with an error.

    Attributes:
        code: of that error, such as "untrusted".
        exit_code: what a command ends with.
        plugin: whom it is about; "" for none.
    """

    exit_code = 1

    def __init__(
        self, message: str, *, code: str, exit_code: int = 1, plugin: str = "", remedy: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.code = code
        self.exit_code = exit_code
        self.plugin = plugin


class RefusedError(SandboxHostError):
    """A plugin was not admitted; nothing of it was executed."""

    code = "refused"


class BundleError(RefusedError):
    """The directory is not a well-formed bundle (links, devices, twins, sizes, names)."""

    code = "bundle"


class ManifestError(RefusedError):
    """plugin.json is not acceptable; the message starts with the path of the bad value."""

    code = "manifest"


class VerificationError(RefusedError):
    """The bytes do not match the signed statement, or the signature is bad.

    Attributes:
        differing: the first file that differs: its path, the SHA-256 signed and the one found, ""
            where a side has no such file; None where the signature itself is at fault.
    """

    code = "tampered"
    differing: tuple[str, str, str] | None = None


class UnsignedError(RefusedError):
    """The bundle carries no signature envelope."""

    code = "unsigned"


class UntrustedError(RefusedError):
    """The signature is good but its key is unknown, revoked, expired or out of scope."""

    code = "untrusted"


class TrustStoreError(SandboxHostError):
    """The trust store or a key file is missing, malformed or not protected enough to be used."""

    code = "trust-store"


class AdmissionError(RefusedError):
    """The plugin asks for more than it is granted, or for what cannot be enforced here."""

    code = "admission"


class PluginDisabledError(RefusedError):
    """``config.enabled`` is false, or its operator ran `sandbox-host disable`."""

    code = "disabled"


# -- confinement ------------------------------------------------------------------------------


class ConfinementError(SandboxHostError):
    """A guarantee cannot be kept on this machine, or the platform has no backend.

    Attributes:
        layer: the name of the missing guarantee, or of the layer that is switched off or could not
            be applied; of the first, if there are several.
    """

    code = "confinement"

    def __init__(self, message: str, *, layer: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.layer = layer


class AttestationError(SandboxHostError):
    """A started child is not confined as planned. This is the host's fault, never the plugin's."""

    code = "attestation"


# -- a running plugin -------------------------------------------------------------------------


class ServiceError(SandboxHostError):
    """For services of the application: raised in one, it tells the plugin why there is no value."""

    code = "service"


class PluginError(SandboxHostError):
    """Base of what goes wrong with one plugin; the host and the other plugins go on.

    Attributes:
        plugin: the plugin's identity.
        usage: what the call cost that this is the outcome of, or None where there was no call.
    """

    code = "plugin"
    usage: CallUsage | None = None

    def __init__(self, message: str, *, plugin: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.plugin = plugin


class PluginNotFoundError(PluginError):
    """No plugin of that name is loaded, or has a data directory."""

    code = "not-found"


class AlreadyLoadedError(PluginError):
    """A plugin of the same identity is loaded already."""

    code = "already-loaded"


class DataInUseError(PluginError):
    """The plugin's data directory is in use: some host with this state directory has it loaded."""

    code = "data-in-use"


class StartError(PluginError):
    """The plugin did not become ready: import failed, `init_plugin` refused, or it took too long.

    Attributes:
        traceback_text: the plugin's traceback as text, or "" where there is none.
        denial: what the plugin's process says that it was refused, or None: advice, not evidence.
    """

    code = "start"

    def __init__(
        self,
        message: str,
        *,
        plugin: str,
        remedy: str = "",
        traceback_text: str = "",
        denial: Denial | None = None,
    ) -> None:
        super().__init__(message, plugin=plugin, remedy=remedy)
        self.traceback_text = traceback_text
        self.denial = denial


class MetadataMismatchError(StartError):
    """`get_metadata()` differs from the signed plugin.json; the message names the key."""

    code = "metadata-mismatch"


class NoSuchOperationError(PluginError):
    """The plugin offers no operation of that name."""

    code = "no-such-operation"


class NotSerializableError(PluginError):
    """An argument or result cannot be carried over the wire."""

    code = "not-serializable"


class MessageTooLargeError(PluginError):
    """An argument or result exceeds the wire's limits; the channel still works."""

    code = "message-too-large"


class BackpressureError(PluginError):
    """Too much is outstanding for this plugin already; try again later."""

    code = "backpressure"


class OperationError(PluginError):
    """The operation raised an exception inside the plugin.

    Attributes:
        type_name: the exception's class name inside the plugin. Only text: nothing of the
            plugin's classes is ever recreated in the host.
        traceback_text: the traceback as text, limited in size.
        denial: what the plugin's process says that it was refused, or None: advice, not evidence.
    """

    code = "operation"

    def __init__(
        self,
        message: str,
        *,
        plugin: str,
        remedy: str = "",
        type_name: str = "",
        traceback_text: str = "",
        denial: Denial | None = None,
    ) -> None:
        super().__init__(message, plugin=plugin, remedy=remedy)
        self.type_name = type_name
        self.traceback_text = traceback_text
        self.denial = denial


class BudgetExceededError(PluginError):
    """An operation or a plugin used more than it may.

    Attributes:
        budget: "memory", "cpu", "descriptors", "threads", "data", "data_files" or "wall_time".
        limit: the budget's value, in `unit`.
        used: what was used when the excess was seen, in `unit`; None where it cannot be known.
        unit: "bytes", "seconds", "descriptors", "threads" or "files".
        place: where in the plugin's code, as "file:line in function"; "" where it cannot be had.
            It is reported by the plugin's process: advice, not evidence.
        ended: True when the plugin's process was ended, False when only the operation was.
    """

    code = "budget"

    def __init__(
        self,
        message: str,
        *,
        plugin: str,
        budget: str,
        limit: float,
        unit: str,
        used: float | None = None,
        place: str = "",
        ended: bool = True,
        remedy: str = "",
    ) -> None:
        super().__init__(message, plugin=plugin, remedy=remedy)
        self.budget = budget
        self.limit = limit
        self.unit = unit
        self.used = used
        self.place = place
        self.ended = ended


class DeadlineExceededError(BudgetExceededError):
    """A call was not answered within its deadline (the budget "wall_time")."""

    code = "deadline"


class CallCancelledError(PluginError):
    """A call was cancelled, by who waited for it.

    Attributes:
        ended: True when its plugin was ended for it, because it went on all the same.
    """

    code = "cancelled"

    def __init__(self, message: str, *, plugin: str, ended: bool = False, remedy: str = "") -> None:
        super().__init__(message, plugin=plugin, remedy=remedy)
        self.ended = ended


class NotAStreamError(PluginError):
    """An operation that returns a value was read as a stream, or one that yields was called."""

    code = "not-a-stream"


class ReentrantCallError(PluginError):
    """A service that a plugin waits for called the same plugin: neither would ever be answered."""

    code = "reentrant"


class PluginEndedError(PluginError):
    """The plugin's process is gone, or was ended by the host.

    Attributes:
        cause: a `sandbox_host.model.Cause` value, such as "crashed" or "protocol-violation".
    """

    code = "ended"

    def __init__(self, message: str, *, plugin: str, cause: str, remedy: str = "") -> None:
        super().__init__(message, plugin=plugin, remedy=remedy)
        self.cause = cause


class ReloadError(PluginError):
    """A new version was not taken: the one before serves on.

    Attributes:
        dependants: loaded plugins for which it would not do; empty where it is something else.
    """

    code = "reload"

    def __init__(
        self, message: str, *, plugin: str, remedy: str = "", dependants: tuple[str, ...] = ()
    ) -> None:
        super().__init__(message, plugin=plugin, remedy=remedy)
        self.dependants = dependants


class DependencyError(PluginError):
    """A plugin was not started, because something that it needs cannot be had; none of it ran.

    Attributes:
        chains: for each dependency that cannot be had, from the plugin to what is at fault.
    """

    code = "dependency"

    def __init__(
        self,
        message: str,
        *,
        plugin: str,
        chains: tuple[tuple[str, ...], ...] = (),
        remedy: str = "",
    ) -> None:
        super().__init__(message, plugin=plugin, remedy=remedy)
        self.chains = chains


class NeededError(DependencyError):
    """A plugin was not unloaded, because others that are loaded need it.

    Attributes:
        dependants: those others, the nearest first.
        chains: from each of them to the plugin.
    """

    code = "needed"

    def __init__(
        self,
        message: str,
        *,
        plugin: str,
        dependants: tuple[str, ...],
        chains: tuple[tuple[str, ...], ...],
        remedy: str = "",
    ) -> None:
        super().__init__(message, plugin=plugin, chains=chains, remedy=remedy)
        self.dependants = dependants


class PassphraseError(TrustStoreError):
    """A private key is encrypted, and its passphrase is missing or wrong."""

    code = "passphrase"


class DossierError(SandboxHostError):
    """A crash dossier cannot be written, found or removed, or is not as the host wrote it."""

    code = "dossier"


class SignerError(TrustStoreError):
    """An agent or program that should sign cannot be had, refuses, or answers wrongly."""

    code = "signer"


# -- what was admitted before -------------------------------------------------------------------


class RollbackError(RefusedError):
    """The plugin is older than a version of it that was admitted before."""

    code = "rollback"


class EquivocationError(RollbackError):
    """The plugin has the version of one that was admitted before, and other files."""

    code = "equivocation"


class ClockError(RollbackError):
    """This machine's clock shows a time long before one that the host has seen."""

    code = "clock"


class HeldError(RefusedError):
    """The update asks for more than the version before it; an operator has to approve that.

    Attributes:
        plugin: the plugin's identity.
        changes: what it asks for more, each as one line of text.
    """

    code = "held"

    def __init__(
        self, message: str, *, plugin: str, changes: tuple[str, ...], remedy: str = ""
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.plugin = plugin
        self.changes = changes


class HistoryError(SandboxHostError):
    """What the host remembers of admitted plugins cannot be read or written, or is missing."""

    code = "history"


class RecordingError(SandboxHostError):
    """A recording of a plugin cannot be made or read, or is not as a host wrote it."""

    code = "recording"


# -- events -----------------------------------------------------------------------------------


class SubscriberTooSlowError(SandboxHostError):
    """A subscription with the policy "disconnect" was closed: too much waited for its reader."""

    code = "subscriber-too-slow"


class EventStoreError(SandboxHostError):
    """The store of durable events cannot be used; it is never begun afresh because of that."""

    code = "event-store"


class EventStoreInUseError(EventStoreError):
    """Another host with this state directory has the store: it belongs to one at a time."""

    code = "event-store-in-use"


class EventStoreFullError(EventStoreError):
    """An event was not published: a durable subscription can take no more before it acknowledges.

    Attributes:
        subscription: its name.
    """

    code = "event-store-full"

    def __init__(self, message: str, *, subscription: str, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.subscription = subscription


# -- finding plugins, and chains of them --------------------------------------------------------


class NoSuchCapabilityError(SandboxHostError):
    """No loaded plugin with that capability can be used now.

    Attributes:
        capability: what was looked for.
        reasons: the plugins that have it, in load order, each with why it is not used.
    """

    code = "no-such-capability"

    def __init__(
        self,
        message: str,
        *,
        capability: str,
        reasons: tuple[tuple[str, str], ...] = (),
        remedy: str = "",
    ) -> None:
        super().__init__(message, remedy=remedy)
        self.capability = capability
        self.reasons = reasons


class KindMismatchError(PluginError):
    """A plugin, or an operation in a chain, is of another kind than is needed there.

    Attributes:
        wanted: what is needed: "Model", "DataSource", "Pipeline", or "stream" within a chain.
        found: what it is; "" for a plugin that is none of these, "value" for an operation.
    """

    code = "kind-mismatch"

    def __init__(
        self, message: str, *, plugin: str, wanted: str, found: str, remedy: str = ""
    ) -> None:
        super().__init__(message, plugin=plugin, remedy=remedy)
        self.wanted = wanted
        self.found = found
