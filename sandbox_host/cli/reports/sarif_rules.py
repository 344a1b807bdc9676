"""The rules of a SARIF report: one for each way in which a plugin is refused.

A rule's id is the `code` of the error, which is stable: whoever suppressed or assigned a result
finds it again after an update.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule.

    Attributes:
        id: the refusal's `code`.
        name: an identifier in Pascal case, for people.
        short: one sentence, without its full stop.
        help: what to do, in general.
        severity: 0 to 10, as code scanning sorts alerts (9 and more: critical, 7 and more: high).
    """

    id: str
    name: str
    short: str
    help: str
    severity: str

    def descriptor(self) -> dict[str, Any]:
        """Return it as a reportingDescriptor (SARIF 2.1.0, 3.49)."""
        return {
            "id": self.id,
            "name": self.name,
            "shortDescription": {"text": f"{self.short}."},
            "fullDescription": {"text": f"{self.short}. {self.help}"},
            "help": {"text": self.help},
            "defaultConfiguration": {"level": "error"},
            "properties": {
                "tags": ["security", "supply-chain"],
                "security-severity": self.severity,
            },
        }


RULES: Final = (
    Rule(
        "tampered",
        "PluginTampered",
        "The plugin is not what was signed, or its signature is not good",
        "Compare it with what its author released; `sandbox-host inspect` shows every difference. "
        "If the change is yours, sign it again.",
        "9.8",
    ),
    Rule(
        "untrusted",
        "PluginSignerNotTrusted",
        "The plugin is signed by a key that is not trusted for it",
        "The key is unknown, revoked, expired or out of its scope, or too few keys signed. Ask the "
        "plugin's author for the key by another way before you add it to the trust store.",
        "8.8",
    ),
    Rule(
        "rollback",
        "PluginRolledBack",
        "The plugin is older than what was admitted before",
        "Get the newest release. Only the operator can allow a downgrade.",
        "8.1",
    ),
    Rule(
        "equivocation",
        "PluginEquivocates",
        "The plugin has the version of one that was admitted before, and other files",
        "Ask its author why two releases have one version; a change needs a version of its own.",
        "8.1",
    ),
    Rule(
        "clock",
        "ClockSetBack",
        "This machine's clock is behind what was seen before",
        "Set the clock right; `sandbox-host history accept clock` takes it as it is.",
        "5.3",
    ),
    Rule(
        "unsigned",
        "PluginUnsigned",
        "The plugin carries no signature",
        "Have its author sign it, or review it and sign it yourself.",
        "8.1",
    ),
    Rule(
        "bundle",
        "PluginMalformed",
        "The plugin is not a well-formed bundle",
        "It holds what no plugin may hold: a link, a refused name, too much of something. "
        "`sandbox-host check --static` says what.",
        "7.5",
    ),
    Rule(
        "manifest",
        "PluginManifestNotAcceptable",
        "The plugin's plugin.json is not acceptable",
        "`sandbox-host check --static` says what in it, and where.",
        "7.5",
    ),
)

_KNOWN: Final = {rule.id: rule for rule in RULES}


def rule_for(code: str) -> Rule:
    """Return the rule for a refusal's code; one in general terms where there is none of its own."""
    return _KNOWN.get(code) or Rule(
        code,
        "PluginRefused",
        "The plugin was refused",
        "The result's message says why, and what to do.",
        "7.5",
    )
