"""The operator's configuration: one immutable value, made in Python or read from a TOML file.

Defaults are the strict ones: nothing granted, no layer switched off, nothing accepted as missing.
The keys of document A's production configuration are read too; those of them that would switch a
protection off are refused with an explanation, because there is no such switch here.
"""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PrivateAttr,
    ValidationError,
    ValidatorFunctionWrapHandler,
    field_validator,
    model_validator,
)

from plugin_sdk.wire.limits import MAX_ALLOWED_BYTES, MAX_OUTSTANDING, MAX_PAYLOAD_BYTES
from sandbox_host.confinement_terms import read_accepted, read_disabled, read_uids
from sandbox_host.errors import ConfigError
from sandbox_host.instance_terms import (
    InstanceTerms,
    check_apart,
    read_instances,
    read_replicas,
)
from sandbox_host.model import MIB, Grant, Guarantee, Layer, Limits, Permissions
from sandbox_host.monitoring_terms import AlertSettings
from sandbox_host.reading import (
    BadValueError,
    at,
    check_keys,
    describe,
    parse_bytes,
    parse_seconds,
    read_object,
    sentence,
    shown_bytes,
)
from sandbox_host.terms import check_json_value, check_limits, read_limits, read_permissions

CONFIG_NAME: Final = "config.toml"
TRUST_STORE_NAME: Final = "trust.toml"
JOURNAL_NAME: Final = "journal.jsonl"
MAX_CONFIG_BYTES: Final = MIB

_PATHS: Final = (
    "trust_store",
    "state_dir",
    "plugin_environment",
    "python",
    "cgroup",
    "plugin_directory",
)
_PATTERN: Final = re.compile(r"[a-z0-9_*?\[\]!-]{1,64}")
_KEY_ID: Final = re.compile(r"[0-9a-f]{64}")
_MAX_PROBLEMS_SHOWN: Final = 5

_PROTECTIONS: Final[Mapping[str, str]] = {
    "enable_sandboxing": (
        "a plugin runs confined or not at all; if this machine cannot keep a guarantee, name that "
        "guarantee in accept_missing"
    ),
    "require_signatures": (
        "nothing unsigned runs; for development sign with a development key (sandbox-host keygen, "
        "sandbox-host sign)"
    ),
    "restrict_permissions": (
        'a plugin has what it requests and you grant; grant more by name under [grants."<plugin>"]'
    ),
}
_A_LIMITS: Final[Mapping[str, str]] = {
    "max_memory": "memory",
    "max_cpu_time": "cpu_time",
    "max_file_descriptors": "descriptors",
}


def _xdg_dir(variable: str, fallback: str) -> Path:
    # The XDG specification tells to ignore a relative path.
    given = os.environ.get(variable, "")
    base = Path(given) if given.startswith("/") else Path.home() / fallback
    return base / "sandbox-host"


def default_config_dir() -> Path:
    """Return where configuration, trust store and keys are: ``$XDG_CONFIG_HOME/sandbox-host``."""
    return _xdg_dir("XDG_CONFIG_HOME", ".config")


def default_state_dir() -> Path:
    """Return where journal, logs and data are: ``$XDG_STATE_HOME/sandbox-host``."""
    return _xdg_dir("XDG_STATE_HOME", ".local/state")


# -- readers of single fields -----------------------------------------------------------------


def _read_ceilings(value: object) -> object:
    if isinstance(value, Limits):
        return check_limits(value, "ceilings")
    return _limits(value, "ceilings")


def _limits(value: object, path: str) -> Limits:
    return Limits(**read_limits(value, path, operator=True))  # type: ignore[arg-type]  # fields match by construction


def _by_plugin(field: str, read: Callable[[object, str], Any]) -> BeforeValidator:
    """Return a validator of a table by plugin: patterns of identities, each with one value."""

    def validate(value: object) -> object:
        result = {}
        for pattern, entry in read_object(value, field).items():
            where = at(field, pattern)
            if not _PATTERN.fullmatch(pattern):
                raise BadValueError(
                    where,
                    "expected a plugin's identity in lower case, or a pattern of it such as "
                    f'"weather_*", got {describe(pattern)}',
                )
            result[pattern] = read(entry, where)
        return result

    return BeforeValidator(validate)


def _read_grant(value: object, path: str) -> Grant:
    # What was made in Python is held to the same rules as what was read.
    table = value
    if isinstance(value, Permissions):
        named = value.named if isinstance(value, Grant) else frozenset[str]()
        table = {k: v for k, v in asdict(value).items() if k != "named" and (v or k in named)}
    read = read_permissions(table, path)
    return Grant(**asdict(read), named=frozenset(read_object(table, path)))


def _read_signer_grants(value: object) -> object:
    result = {}
    for key, entry in read_object(value, "signer_grants").items():
        where = at("signer_grants", key)
        if not _KEY_ID.fullmatch(key):
            what = "expected a signer's key id, 64 hexadecimal digits"
            raise BadValueError(where, f"{what}; sandbox-host trust list shows them")
        result[key] = _read_grant(entry, where)
    return result


def _read_plugin_config(value: object, path: str) -> Mapping[str, Any]:
    check_json_value(value, path)
    return dict(read_object(value, path))


def _seconds(field: str) -> BeforeValidator:
    return BeforeValidator(lambda value: parse_seconds(value, field))


def _bytes(field: str, *, optional: bool = False) -> BeforeValidator:
    def read(value: object) -> object:
        return None if optional and value is None else parse_bytes(value, field)

    return BeforeValidator(read)


class PerformanceThresholds(BaseModel):
    """Document A's thresholds: above one of them a plugin counts as degraded.

    None is looked at that is not set: how much memory a plugin may use is told by its own budget,
    and how long an operation may take by its deadline.

    Attributes:
        max_operation_time: milliseconds that nearly all (p99) of its operations take.
        max_memory_usage: bytes, or text with a unit.
        max_cpu_usage: per cent of one core.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    max_operation_time: float | None = Field(default=None, gt=0, le=86_400_000)
    max_memory_usage: Annotated[
        int | None, _bytes("performance_thresholds.max_memory_usage", optional=True)
    ] = None
    max_cpu_usage: float | None = Field(default=None, gt=0, le=100_000)


class HostConfig(BaseModel):  # noqa: PLW1641 - frozen, but what it holds has no hash
    """Everything that the operator decides, checked once and never changed.

    Attributes:
        trust_store: TOML file of trusted keys.
        state_dir: journal, logs, plugins' data, private copies; made with mode 0700.
        plugin_environment: directory of installed packages that plugins may import, or None.
        python: interpreter of the plugins' processes; None is the host's own.
        ceilings: the most that any plugin gets, and the table ``[limits]`` in TOML.
        grants: permissions by pattern of plugin identity.
        signer_grants: permissions by key id of the signer, as ``sandbox-host trust list`` shows it.
        plugin_config: configuration by pattern of plugin identity, laid over plugin.json's.
        instances: those of each plugin, by its identity and then by their names, for
            ``sandbox-host run``: such a plugin runs as these, and not by itself.
        replicas: how many processes of a plugin it runs behind the plugin's name; at most 64.
        accept_missing: names of guarantees, and of layers in ``disable_layers``, that this operator
            knowingly does without; what is missing and not named refuses every plugin.
        disable_layers: layers that are not applied although the machine has them; each has to be
            in ``accept_missing`` as well, with the guarantees that go missing with it. Those in
            `FIXED_LAYERS` cannot be switched off.
        start: "nursery" forks the plugins from one clean process, in milliseconds; "exec" gives
            each an interpreter of its own, with an address layout and a hash seed that no other
            plugin has.
        pool: how many blank processes wait for a plugin, so that its start does not wait for a
            fork; at most 256, and only with ``start = "nursery"``.
        plugin_uids: where the host is root, the user ids that plugins get, one each: the first,
            and how many (at most 100,000). In TOML text: ``"61184-65183"``. They must be nobody's.
        cgroup: directory of a control group that was delegated to the host, or None to look for
            one.
        forward_journal: also hand every line of the journal to the system journal, where there is
            one; what that does not take at once is lost, and counted.
        refuse_findings: the least severity of what a scan of a plugin's sources finds that refuses
            the plugin; "none" scans nothing.
        start_timeout_seconds: from spawn to ready.
        stop_timeout_seconds: for draining and ``cleanup()``.
        sweep_seconds: how often the watchdog looks at memory, CPU time, threads and deadlines.
        log_bytes: size at which a plugin's log file is cut.
        dossier_bytes: the most that the dossier of one failed plugin takes; from 96 KiB to 1 MiB.
        dossiers_kept: how many dossiers there are at most; the oldest of the plugin with the most
            goes first.
        max_outstanding_calls: per plugin; more are refused with `BackpressureError`.
        max_payload_bytes: of the arguments or the result of one call, or one item of a stream; 8 to
            65 MiB. What is larger is refused with `MessageTooLargeError`.
        event_queue: events that may wait for one slow subscriber.
        replay_events: the last events that are kept for subscribers that come late, 4 MiB at most.
        durable_events: events that may wait for the acknowledgement of one durable subscription;
            beyond these bounds nothing is published that it wants.
        durable_bytes: of the data of those events.
        durable_age_seconds: of the oldest of them.
        require_event_store: open only with the store of durable events, which one host at a time
            has; without it, the store is taken where it is there and free, and when it is used.
        health_check_interval: milliseconds between two looks at a plugin's health (document A's
            unit); in doubt it is looked at three times as often.
        health_check_timeout: milliseconds that a plugin may take to answer its health check.
        plugin_directory: where ``sandbox-host run`` discovers plugins, or None.
        performance_thresholds: document A's; those that are set make a plugin degraded.
        alerts: who is told of trouble, and how often; the table ``[alerts]`` in TOML.
        auto_discovery: whether ``sandbox-host run`` watches the plugin directory.
        load_on_startup: whether it loads what lies there when it starts.
        enable_monitoring: whether plugins are looked at for their health at all.
        metrics_collection: whether the host's own measurements count there (memory, CPU, failing
            and waiting calls); else only what a plugin answers.
        enable_profiling: whether the time that operations take is among those measurements.
        enable_sandboxing, require_signatures, restrict_permissions: document A's; only true.

    Raises:
        ConfigError: for anything unknown, of a wrong type or out of range, and for document A's
            switches that would turn a protection off.
    """

    model_config = ConfigDict(
        frozen=True, extra="forbid", strict=True, arbitrary_types_allowed=True
    )

    trust_store: Path = Field(default_factory=lambda: default_config_dir() / TRUST_STORE_NAME)
    state_dir: Path = Field(default_factory=default_state_dir)
    plugin_environment: Path | None = None
    python: Path | None = None
    ceilings: Annotated[Limits, BeforeValidator(_read_ceilings)] = Limits()
    grants: Annotated[dict[str, Permissions], _by_plugin("grants", _read_grant)] = Field(
        default_factory=dict
    )
    signer_grants: Annotated[dict[str, Permissions], BeforeValidator(_read_signer_grants)] = Field(
        default_factory=dict
    )
    plugin_config: Annotated[
        dict[str, Mapping[str, Any]], _by_plugin("plugin_config", _read_plugin_config)
    ] = Field(default_factory=dict)
    instances: Annotated[
        Mapping[str, Mapping[str, InstanceTerms]], BeforeValidator(read_instances)
    ] = Field(default_factory=dict)
    replicas: Annotated[Mapping[str, int], BeforeValidator(read_replicas)] = Field(
        default_factory=dict
    )
    accept_missing: Annotated[frozenset[Guarantee | Layer], BeforeValidator(read_accepted)] = (
        frozenset()
    )
    disable_layers: Annotated[frozenset[Layer], BeforeValidator(read_disabled)] = frozenset()
    start: Literal["nursery", "exec"] = "nursery"
    pool: int = Field(default=0, ge=0, le=256)
    plugin_uids: Annotated[tuple[int, int], BeforeValidator(read_uids)] = (61_184, 4_000)
    cgroup: Path | None = None
    start_timeout_seconds: Annotated[float, _seconds("start_timeout_seconds")] = Field(
        default=30.0, gt=0, le=3_600
    )
    stop_timeout_seconds: Annotated[float, _seconds("stop_timeout_seconds")] = Field(
        default=5.0, gt=0, le=3_600
    )
    sweep_seconds: Annotated[float, _seconds("sweep_seconds")] = Field(
        default=0.02, ge=0.001, le=10
    )
    log_bytes: Annotated[int, _bytes("log_bytes")] = Field(default=16 * MIB, ge=4_096, le=2**40)
    dossier_bytes: Annotated[int, _bytes("dossier_bytes")] = Field(
        default=256 * 1024, ge=96 * 1024, le=MIB
    )
    dossiers_kept: int = Field(default=100, ge=1, le=10_000)
    max_outstanding_calls: int = Field(default=MAX_OUTSTANDING, ge=1, le=MAX_OUTSTANDING)
    max_payload_bytes: Annotated[int, _bytes("max_payload_bytes")] = Field(
        default=MAX_PAYLOAD_BYTES, ge=MAX_PAYLOAD_BYTES, le=MAX_ALLOWED_BYTES
    )
    event_queue: int = Field(default=256, ge=1, le=65_536)
    replay_events: int = Field(default=256, ge=0, le=65_536)
    durable_events: int = Field(default=100_000, ge=1, le=1_000_000)
    durable_bytes: Annotated[int, _bytes("durable_bytes")] = Field(
        default=256 * MIB, ge=MIB, le=2**40
    )
    durable_age_seconds: Annotated[float, _seconds("durable_age_seconds")] = Field(
        default=7 * 86_400.0, gt=0, le=366 * 86_400
    )
    require_event_store: bool = False
    health_check_interval: float = Field(default=30_000.0, ge=10, le=86_400_000)
    health_check_timeout: float = Field(default=10_000.0, ge=10, le=3_600_000)
    plugin_directory: Path | None = None
    performance_thresholds: PerformanceThresholds = PerformanceThresholds()
    alerts: AlertSettings = AlertSettings()
    auto_discovery: bool = True
    load_on_startup: bool = True
    enable_profiling: bool = True
    enable_monitoring: bool = True
    metrics_collection: bool = True
    enable_sandboxing: bool = True
    require_signatures: bool = True
    restrict_permissions: bool = True
    forward_journal: bool = False
    refuse_findings: Literal["none", "low", "medium", "high"] = "none"
    _file: Path | None = PrivateAttr(default=None)

    def __eq__(self, other: object) -> bool:
        """Tell whether the same was decided, wherever it was read."""
        return isinstance(other, HostConfig) and self.__dict__ == other.__dict__

    @model_validator(mode="wrap")
    @classmethod
    def _one_error(cls, data: Any, handler: ValidatorFunctionWrapHandler) -> Self:
        # ConfigError and BadValueError are no ValueError, so pydantic lets them through.
        try:
            result: Self = handler(data)
        except ValidationError as error:
            raise ConfigError(_told(error)) from None
        except BadValueError as error:
            raise ConfigError(
                sentence(f"The host's configuration is not usable: {error}")
            ) from None
        return result

    @field_validator(*_PATHS, mode="before")
    @classmethod
    def _path(cls, value: object) -> object:
        return Path(value).expanduser().absolute() if isinstance(value, str | Path) else value

    @field_validator(*_PROTECTIONS)
    @classmethod
    def _keep_protections(cls, value: bool, info: Any) -> bool:
        if not value:
            raise ConfigError(
                f"{info.field_name} = false is refused: it would switch a protection off for every "
                "plugin, and this host has no such switch.",
                remedy=f"Remove the line; {_PROTECTIONS[info.field_name]}.",
            )
        return value

    @model_validator(mode="after")
    def _pool_needs_a_nursery(self) -> Self:
        if self.pool and self.start != "nursery":
            raise ConfigError(
                'pool: has no use with start = "exec", which gives each plugin an interpreter of '
                "its own.",
                remedy='Leave it out, or take start = "nursery".',
            )
        return self

    @model_validator(mode="after")
    def _instances_or_replicas(self) -> Self:
        check_apart(self.instances, self.replicas)
        return self

    @property
    def journal_path(self) -> Path:
        """The journal's file."""
        return self.state_dir / JOURNAL_NAME

    @property
    def private_paths(self) -> tuple[Path, ...]:
        """Where configuration, trust store and keys are, which are no plugin's business."""
        file = [self._file] if self._file is not None else []
        # Beside the trust store: what its root signed, and which root that is.
        store = self.trust_store
        trusted = [store, *(store.with_name(store.name + end) for end in (".sig", ".root.pub"))]
        try:
            return (*trusted, default_config_dir(), *file)
        except RuntimeError:  # this user has no home
            return (*trusted, *file)

    @classmethod
    def from_toml(cls, path: str | os.PathLike[str]) -> Self:
        """Return the configuration in a TOML file; relative paths in it start at its directory.

        Args:
            path: a regular file of at most 1 MiB that nobody but its owner and group may write.

        Raises:
            ConfigError: the file cannot be read, is not TOML, or holds what `HostConfig` refuses.
        """
        file = Path(path)
        table = _read_toml(file)
        try:
            config = cls(**_fields(table, file.absolute().parent))
        except BadValueError as error:
            raise ConfigError(sentence(f"{file} is not usable: {error}")) from None
        except ConfigError as error:
            raise ConfigError(f"{file}: {error.message}", remedy=error.remedy) from None
        config._file = file.absolute()
        return config


# -- from TOML --------------------------------------------------------------------------------


def _read_toml(path: Path) -> dict[str, Any]:
    remedy = f"Name a readable TOML file of at most {shown_bytes(MAX_CONFIG_BYTES)}."
    try:
        # Without O_NONBLOCK, opening a FIFO would wait for a writer.
        with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ConfigError(f"{path} is no regular file.", remedy=remedy)
            if status.st_mode & stat.S_IWOTH:
                raise ConfigError(
                    f"{path} can be written by everybody, so that anybody could grant permissions.",
                    remedy=f"Run: chmod o-w {path}",
                )
            data = file.read(MAX_CONFIG_BYTES + 1)
        if len(data) > MAX_CONFIG_BYTES:
            raise ConfigError(
                f"{path} is larger than {shown_bytes(MAX_CONFIG_BYTES)}.", remedy=remedy
            )
        return tomllib.loads(data.decode())
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", remedy=remedy) from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        remedy = "Correct it there." if isinstance(error, tomllib.TOMLDecodeError) else remedy
        raise ConfigError(sentence(f"{path} is not TOML: {error}"), remedy=remedy) from None


def _fields(table: dict[str, Any], base: Path) -> dict[str, Any]:
    """Return the constructor's arguments for a TOML document."""
    # In Python the field is `ceilings`; the document says [limits], as plugin.json does.
    known = [name for name in HostConfig.model_fields if name != "ceilings"]
    check_keys(table, "", (*known, "limits", "resource_limits"))
    fields = {key: value for key, value in table.items() if key in known}
    limits = dict(read_object(table.get("limits", {}), "limits"))
    for key, value in _a_limits(table.get("resource_limits", {})).items():
        if key in limits:
            raise BadValueError(f"limits.{key}", "is also given in resource_limits; keep one")
        limits[key] = value
    if limits:
        fields["ceilings"] = _limits(limits, "limits")
    for key in _PATHS:
        if isinstance(fields.get(key), str):
            fields[key] = base / Path(fields[key]).expanduser()
    return fields


def _a_limits(value: object) -> dict[str, Any]:
    """Return document A's ``resource_limits`` in the words of ``[limits]``."""
    table = read_object(value, "resource_limits")
    check_keys(table, "resource_limits", _A_LIMITS)
    limits = {_A_LIMITS[key]: entry for key, entry in table.items()}
    time = limits.get("cpu_time")
    if isinstance(time, int) and not isinstance(time, bool):
        # There a bare number is nanoseconds (60 * std.time.ns_per_s).
        limits["cpu_time"] = time / 1e9
    return limits


def _told(error: ValidationError) -> str:
    problems = []
    for one in error.errors(include_url=False)[:_MAX_PROBLEMS_SHOWN]:
        path = ""
        for key in one["loc"]:
            path = at(path, key)
        if one["type"] == "extra_forbidden":
            problems.append(_unknown(one["loc"], path))
        elif one["type"] == "missing":
            problems.append(f"{path}: missing")
        else:
            problem = one["msg"].replace("Input should be", "expected")
            problems.append(f"{path}: {problem}, got {describe(one['input'])}")
    return sentence(f"The host's configuration is not usable: {'; '.join(problems)}")


def _unknown(loc: tuple[int | str, ...], path: str) -> str:
    if path in {"limits", "resource_limits"}:
        return f"{path}: is the name of the table in TOML; here it is `ceilings`"
    tables: Mapping[object, type[BaseModel]] = {"alerts": AlertSettings}
    model = tables.get(loc[0], PerformanceThresholds) if len(loc) > 1 else HostConfig
    try:
        check_keys({str(loc[-1]): None}, "", model.model_fields)
    except BadValueError as error:
        return f"{path}: {error.problem}"
    return f"{path}: unknown key"
