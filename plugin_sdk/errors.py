"""Errors that a plugin's own code can meet when it uses the SDK."""

from __future__ import annotations


class PluginSdkError(Exception):
    """Base of all errors that the SDK raises in a plugin."""


class ContextUnavailableError(PluginSdkError, RuntimeError):
    """`plugin_sdk.context` was called outside a plugin's process and outside a test context."""


class PermissionDenied(PluginSdkError, PermissionError):  # noqa: N818 - the author's API, beside PermissionError
    """The plugin has not been granted what it tries to do; the text names the plugin.json key.

    Attributes:
        rule: the permission, by its name in plugin.json.
        asked: what was asked for.
    """

    rule = ""
    asked = ""

    @classmethod
    def of(cls, rule: str, asked: str, text: str) -> PermissionDenied:
        """Return one that knows which permission is missing."""
        error = cls(text)
        error.rule, error.asked = rule, asked
        return error


class DeadlinePassed(BaseException):
    """The operation's deadline has passed; raised inside it, once, so that it can clean up.

    Like KeyboardInterrupt it is no `Exception`: ``except Exception`` must not swallow it. An
    operation that goes on all the same takes its whole plugin with it a quarter of a second later.
    """


class EventTypeError(PluginSdkError, ValueError):
    """An event type is not made of letters, digits, "_" and ".", such as ``data_processed``."""


class NotSerializableError(PluginSdkError, ValueError):
    """A value has a type, a size or a nesting that cannot leave the plugin's process."""


class ServiceError(PluginSdkError):
    """A service of the host's application was not done; the text says why."""


class PluginStoppingError(PluginSdkError, RuntimeError):
    """The plugin is being unloaded: nothing can be published any more."""
