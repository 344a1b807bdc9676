"""The admission of one verified plugin: a `SandboxPlan`, or a refusal that names each difference.

The steps, numbered again in `admit`:

1. The plugin is enabled, by plugin.json or the operator.
2. Its plugin API, and the ``core_framework`` it depends on, are this host's.
3. Every permission it requests is available and granted; no limit it names is above the ceiling.
4. Its configuration, with the operator's laid over it, meets its schema.
5. Every guarantee is kept by the layers that this machine offers, or its absence accepted by name.
6. Its sources were scanned, where findings may refuse it; what they are admits nothing.

That it brings no native code that it did not request is a rule of bundles, kept at verification.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import InitVar, dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from sandbox_host.admission.confinement import confine
from sandbox_host.admission.instances import Instance, instance_identity
from sandbox_host.admission.policy import (
    Policy,
    effective_limits,
    effective_permissions,
    limit_differences,
    permission_differences,
)
from sandbox_host.admission.requests import Difference, covers_path
from sandbox_host.bundle.config_schema import validate_config
from sandbox_host.bundle.plugin_json import THREADS_BESIDE, api_range, split_dependency
from sandbox_host.errors import AdmissionError, ConfigError, PluginDisabledError
from sandbox_host.model import (
    HOST_SERVICES,
    PLUGIN_API_VERSION,
    Guarantee,
    Layer,
    Limits,
    Manifest,
    Permissions,
)
from sandbox_host.reading import BadValueError, quoted, sentence, shown_bytes
from sandbox_host.scan.verdict import ScanEvidence, check_evidence

if TYPE_CHECKING:
    from sandbox_host.bundle.verify import VerifiedBundle

CORE_FRAMEWORK: Final = "core_framework"
_TOKEN: Final = object()

_UNIX_LAYERS: Final = (Layer.NETWORK_NAMESPACE, Layer.OWN_ROOT, Layer.SECCOMP)
"""Abstract sockets are hidden by the first, those with a path by the second; the third lets a
plugin do nothing but connect. Landlock rules on the paths of sockets in no ABI up to 7."""


_PROCESS_LAYERS: Final = (
    Layer.CGROUP,
    Layer.PID_NAMESPACE,
    Layer.OWN_ROOT,
    Layer.LANDLOCK,
    Layer.SECCOMP,
)
"""The first counts what all processes use, the second ends them with the plugin and keeps their
signals among them; Landlock decides which file is executed, and a root of its own, which is
noexec, what the dynamic loader can be made to load; the last keeps them stopped when the host
stops them."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SandboxPlan:
    """What one plugin gets here, and the proof that it was admitted: only `admit` makes one.

    Attributes:
        identity: what the host calls the plugin, or this instance of it.
        manifest: plugin.json.
        root_digest: SHA-256 of the signed statement's files, in hex; which bytes this plan is for.
        key_id: the key that vouched for them.
        limits: budgets in force.
        permissions: requested x granted.
        config: the configuration as the plugin sees it.
        layers: layers of confinement to apply, in their order.
        disabled: layers that the operator switched off, and accepted to miss by name.
        accepted_missing: guarantees that nothing keeps here, accepted to be missing by name.
        notes: what the operator should be told although the plugin is admitted.
        scan: that its sources were scanned, and what that found; None where no policy wants it.
        instance: which of several it is; None for the plugin itself.
    """

    identity: str
    manifest: Manifest
    root_digest: str
    key_id: str
    limits: Limits
    permissions: Permissions
    config: Mapping[str, Any]
    layers: tuple[Layer, ...]
    disabled: tuple[Layer, ...]
    accepted_missing: tuple[Guarantee, ...]
    notes: tuple[str, ...]
    scan: ScanEvidence | None = None
    instance: Instance | None = None
    token: InitVar[object]

    def __post_init__(self, token: object) -> None:
        if token is not _TOKEN:
            raise TypeError("a SandboxPlan is made by sandbox_host.admission.admit only")


def _toml_lines(differences: Collection[Difference]) -> str:
    """Return what the operator would write, by table, each key once."""
    tables: dict[str, dict[str, list[Difference]]] = {}
    for one in differences:
        if one.table:
            tables.setdefault(one.table, {}).setdefault(one.key, []).append(one)
    told = []
    for table, keys in tables.items():
        lines = []
        for key, ones in keys.items():
            values = ", ".join(one.value for one in ones)
            lines.append(f"{key} = [{values}]" if ones[0].listed else f"{key} = {values}")
        told.append(f"under {table}: {', '.join(lines)}")
    return "; ".join(told)


def _refusal(manifest: Manifest, differences: Collection[Difference]) -> AdmissionError:
    told = "; ".join(f"plugin.json: {d.path}: {d.problem}" for d in differences)
    remedy = []
    if lines := _toml_lines(differences):
        remedy.append(f"To grant it, write in the host's TOML {lines}.")
    if any(not d.table for d in differences):
        remedy.append("What cannot be granted, the plugin has to do without: remove it there.")
    return AdmissionError(
        f"Plugin {manifest.identity} is not admitted: {told}.", remedy=" ".join(remedy)
    )


def _check_api(manifest: Manifest) -> None:
    wanted = [("plugin_api", manifest.plugin_api, api_range(manifest.plugin_api))]
    for index, text in enumerate(manifest.dependencies):
        name, versions = split_dependency(text)
        if name == CORE_FRAMEWORK:
            wanted.append((f"dependencies[{index}]", text, versions))
    for path, text, versions in wanted:
        if not versions.contains(PLUGIN_API_VERSION, prereleases=True):
            raise AdmissionError(
                f"Plugin {manifest.identity} is not admitted: plugin.json: {path}: asks for "
                f"{quoted(text)}, and this host's plugin API is {PLUGIN_API_VERSION}.",
                remedy="Use a version of the plugin made for it, or another version of the host.",
            )


def check_version(manifest: Manifest) -> None:
    """Refuse what no host of this version loads, whatever its operator grants.

    Raises:
        AdmissionError: plugin.json asks for another plugin API or ``core_framework``, or for a
            permission that this version cannot enforce or never gives.
    """
    _check_api(manifest)
    hopeless = [one for one in permission_differences(manifest, Policy()) if not one.table]
    if hopeless:
        raise _refusal(manifest, hopeless)


def _effective_config(
    manifest: Manifest, policy: Policy, instance: Instance | None
) -> dict[str, Any]:
    overrides = policy.overrides(manifest.identity)
    path = f"plugin_config.{manifest.identity}" if overrides else "config"
    if instance is not None and instance.config:
        overrides, path = {**overrides, **instance.config}, f"config of instance {instance.name}"
    try:
        return validate_config(manifest.config_schema, {**manifest.config, **overrides}, path)
    except BadValueError as error:
        raise ConfigError(
            sentence(
                f"The configuration of plugin {manifest.identity} does not meet its schema: {error}"
            ),
            remedy="Change it in the host's TOML; sandbox-host inspect shows the schema.",
        ) from None


def _check_enforced(
    manifest: Manifest, permissions: Permissions, layers: tuple[Layer, ...]
) -> None:
    """Refuse a permission that nothing would keep narrow."""
    _check_processes(manifest, permissions, layers)
    if permissions.network and Layer.SECCOMP not in layers:
        raise AdmissionError(
            f"Plugin {manifest.identity} is not admitted: what it is granted of the network is "
            "kept to that by the layer seccomp alone, which is not in force.",
            remedy="Remove seccomp from disable_layers, or permissions.network from plugin.json.",
        )
    lacking = [layer for layer in _UNIX_LAYERS if layer not in layers]
    if permissions.unix and lacking:
        raise AdmissionError(
            f"Plugin {manifest.identity} is not admitted: it is to connect to Unix sockets, and "
            "what keeps every other socket out of its reach is not in force: "
            f"{', '.join(lacking)}.",
            remedy="Remove them from disable_layers, or permissions.unix from plugin.json.",
        )
    unread = [path for path in permissions.write if not covers_path(permissions.read, path)]
    if unread and Layer.LANDLOCK not in layers:
        raise AdmissionError(
            f"Plugin {manifest.identity} is not admitted: it is to write to {unread[0]} and "
            "not to read there; only the layer landlock keeps that apart, and it is not in force.",
            remedy="Request and grant permissions.read for it as well, or have Landlock in force.",
        )


def _check_processes(
    manifest: Manifest, permissions: Permissions, layers: tuple[Layer, ...]
) -> None:
    """Refuse processes that nothing would count, end, or keep to the one program."""
    lacking = [layer for layer in _PROCESS_LAYERS if layer not in layers]
    if permissions.subprocess and lacking:
        raise AdmissionError(
            f"Plugin {manifest.identity} is not admitted: it is to start processes, and what would "
            "count what they use, end them with the plugin and keep them to its own interpreter "
            f"is not all in force: {', '.join(lacking)} {'is' if len(lacking) == 1 else 'are'} "
            "missing.",
            remedy="Run sandbox-host doctor to see what this machine lacks and what to do about "
            "it, or remove permissions.subprocess from plugin.json.",
        )


def _permission_notes(
    manifest: Manifest, permissions: Permissions, limits: Limits
) -> tuple[str, ...]:
    size = shown_bytes(limits.file_bytes)
    notes = [
        f"it may write to {path}: each file has at most {size}, and nothing bounds all of them"
        for path in permissions.write
    ]
    starts = permissions.threads or permissions.subprocess
    if manifest.limits.get("threads", 1) > 1 and not starts:
        notes.append("limits.threads means nothing without permissions.threads, which it lacks")
    return tuple(notes)


def _check_requests(manifest: Manifest, policy: Policy, signers: Collection[str]) -> None:
    """Refuse a request that is not granted, or a service that nobody offers here."""
    differences = permission_differences(manifest, policy, signers)
    differences += limit_differences(manifest, policy)
    if differences:
        raise _refusal(manifest, differences)
    offered = policy.services | HOST_SERVICES
    missing = [name for name in manifest.permissions.services if name not in offered]
    if missing:
        raise AdmissionError(
            f"Plugin {manifest.identity} is not admitted: it asks for the service "
            f"{quoted(missing[0])}, which this application does not offer.",
            remedy="Load it in the application that it is for, or have that offer it first "
            "(`host.offer`).",
        )


def _check_threads(manifest: Manifest, limits: Limits) -> None:
    """Refuse a plugin that would be ended for its threads as soon as it has as many calls."""
    needed = manifest.concurrency + THREADS_BESIDE
    if manifest.concurrency > 1 and limits.threads < needed:
        raise AdmissionError(
            f"Plugin {manifest.identity} is not admitted: it works on {manifest.concurrency} calls "
            f"at a time, which needs {needed} threads, and may have {limits.threads}.",
            remedy=f"Write under [limits] in the host's TOML: threads = {needed}, or lower its "
            '"concurrency".',
        )


def admit(
    bundle: VerifiedBundle,
    policy: Policy,
    offered: frozenset[Layer],
    required: frozenset[Guarantee] = frozenset(Guarantee),
    scan: ScanEvidence | None = None,
    instance: Instance | None = None,
) -> SandboxPlan:
    """Decide what a verified plugin gets, or refuse it.

    Args:
        bundle: the plugin, with its signature already verified.
        policy: what the operator allows.
        offered: the layers that are active on this machine; those that are switched off need not
            be left out.
        required: the guarantees that have to be kept unless the operator accepted their absence.
        scan: of its sources; whoever made it refused what its findings refuse.
        instance: which of several it is to be; None for the plugin itself.

    Raises:
        PluginDisabledError: it is disabled.
        AdmissionError: it asks for more than it is granted, for what this version cannot enforce,
            or for another plugin API; or its sources were not scanned, and had to be.
        ConfigError: the operator's configuration for it does not meet its schema.
        ConfinementError: a required guarantee is missing, or a layer is switched off, and that was
            not accepted by name.
    """
    manifest = bundle.manifest
    # 1. Enabled, before anything else is asked of a plugin that is not to run. Anything but a bool
    #    is left for step 4, which says so.
    if not policy.enables(manifest):
        raise PluginDisabledError(
            f"Plugin {manifest.identity} is disabled: config.enabled is false.",
            remedy=f"To enable it: [plugin_config.{manifest.identity}] enabled = true.",
        )
    # 2. The plugin API.
    _check_api(manifest)
    # 3. Requested x granted, every difference at once.
    signers = [key.id for key in bundle.signers]
    _check_requests(manifest, policy, signers)
    # 4. Configuration.
    config = _effective_config(manifest, policy, instance)
    # 5. Layers, and the guarantees that they keep.
    confinement = confine(manifest.identity, policy, offered, required)
    permissions = effective_permissions(manifest, policy, signers)
    limits = effective_limits(manifest, policy.ceilings)
    if not (permissions.threads or permissions.subprocess):
        limits = replace(limits, threads=1)
    if instance is not None:
        limits = instance.narrowed(limits)
    _check_threads(manifest, limits)
    _check_enforced(manifest, permissions, confinement.layers)
    # 6. The scan.
    check_evidence(scan, bundle.root_digest, policy.refuse_findings, manifest.identity)
    return SandboxPlan(
        identity=instance_identity(manifest, instance),
        manifest=manifest,
        root_digest=bundle.root_digest,
        key_id=bundle.key_id,
        limits=limits,
        permissions=permissions,
        config=MappingProxyType(config),
        layers=confinement.layers,
        disabled=confinement.disabled,
        accepted_missing=confinement.accepted_missing,
        notes=(
            *manifest.notes,
            *_permission_notes(manifest, permissions, limits),
            *confinement.notes,
        ),
        scan=scan,
        instance=instance,
        token=_TOKEN,
    )


def without_permissions(plan: SandboxPlan) -> SandboxPlan:
    """Return the same plan with nothing granted: for work on a plugin that runs none of it."""
    return replace(plan, permissions=Permissions(), token=_TOKEN)
