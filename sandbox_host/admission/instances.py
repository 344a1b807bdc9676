"""One plugin loaded several times: the name of each instance, and what it has of its own.

An instance is a plugin like any other to whoever calls, watches and accounts for it: by its
identity, ``weather_model@tenant_a``, it has a data directory, a store, a log, budgets and a place
in the journal. Its *admission* is the plugin's: signature, history, approvals and grants know no
instances, so that one more of them is no way to more rights.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from plugin_sdk.wire import codec
from plugin_sdk.wire.errors import PayloadError
from sandbox_host.errors import ConfigError, UsageError
from sandbox_host.instance_terms import INSTANCE_NAME
from sandbox_host.model import INSTANCE_MARK, MIB
from sandbox_host.reading import BadValueError, quoted, sentence
from sandbox_host.terms import read_limits

MAX_CONFIG_BYTES: Final = MIB

if TYPE_CHECKING:
    from sandbox_host.model import Limits, Manifest


@dataclass(frozen=True, slots=True)
class Instance:
    """One of several instances of a plugin.

    Attributes:
        name: small ASCII letters, digits and "_", a letter first, at most 32.
        config: laid over the plugin's configuration, and over the operator's for it: what can be
            sent to a plugin, at most 1 MiB. Copied, as the plugin will see it.
        limits: as in plugin.json, such as ``{"memory": "64 MiB"}``; never above what the plugin
            has without. Those that are not named are the plugin's.

    Raises:
        UsageError: the name is no such name, or the others are no tables.
        ConfigError: the configuration cannot be sent, a limit has no such name, or is out of range.
    """

    name: str
    config: Mapping[str, Any] = field(default_factory=dict)
    limits: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        name: object = self.name  # an application's, which nobody need have checked
        if not (isinstance(name, str) and INSTANCE_NAME.fullmatch(name)):
            text = f"{quoted(str(name))} is no name of an instance."
            remedy = 'Use up to 32 of a-z, 0-9 and "_", a letter first.'
            raise UsageError(text, remedy=remedy)
        for what in ("config", "limits"):
            if not isinstance(getattr(self, what), Mapping):
                text = f"The {what} of instance {self.name} is no mapping."
                raise UsageError(text, remedy='Such as {"memory": "64 MiB"}, with text for keys.')
        # Nobody changes what was decided by: it is loaded again after a crash.
        object.__setattr__(self, "config", MappingProxyType(self._copied()))
        object.__setattr__(self, "limits", MappingProxyType(dict(self.limits)))
        self._own()

    @classmethod
    def of(cls, value: Instance | str | None) -> Instance | None:
        """Return what a caller means who may say no more than a name."""
        return value if value is None or isinstance(value, cls) else cls(value)  # type: ignore[arg-type]

    def narrowed(self, limits: Limits) -> Limits:
        """Return a plugin's budgets, less where the instance names less."""
        own = self._own()
        return replace(limits, **{name: min(getattr(limits, name), own[name]) for name in own})

    def _copied(self) -> dict[str, Any]:
        try:
            packed = codec.pack(dict(self.config))
            if len(packed) > MAX_CONFIG_BYTES:
                text = f"it has {len(packed)} bytes of at most {MAX_CONFIG_BYTES}"
                raise PayloadError(text)
            return dict(codec.unpack(packed))
        except PayloadError as error:
            text = f"The configuration of instance {self.name} cannot be sent: {error}."
            raise ConfigError(text, remedy="Put what is larger into a file.") from None

    def _own(self) -> dict[str, Any]:
        try:
            return dict(read_limits(dict(self.limits), f"limits of instance {self.name}"))
        except BadValueError as error:
            raise ConfigError(sentence(str(error))) from None


def instance_identity(manifest: Manifest, instance: Instance | None) -> str:
    """Return what the host calls a plugin, or one instance of it."""
    plugin = manifest.identity
    return plugin if instance is None else f"{plugin}{INSTANCE_MARK}{instance.name}"
