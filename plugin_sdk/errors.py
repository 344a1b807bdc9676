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


class Cancelled(BaseException):
    """Nobody waits for the operation any more; raised inside it, once, so that it can clean up.

    No `Exception`, for the same reason as `DeadlinePassed`. An ``async def`` gets its framework's
    own: `asyncio.CancelledError`. An operation that goes on all the same takes its whole plugin
    with it when the host's grace is over.
    """


class EventTypeError(PluginSdkError, ValueError):
    """An event type is not made of letters, digits, "_" and ".", such as ``data_processed``."""


class NotSerializableError(PluginSdkError, ValueError):
    """A value has a type, a size or a nesting that cannot leave the plugin's process."""


class ServiceError(PluginSdkError):
    """A service of the host or its application was not done; the text says why."""


class StoreError(ServiceError):
    """The plugin's store cannot be read or written now: the host's disk is full, or worse."""


class QuotaExceededError(StoreError):
    """The plugin's store is full: ``"limits": {"store": …}`` says how much it may hold."""


class CallError(ServiceError):
    """An operation of another plugin that was called came to nothing; the text says why.

    Attributes:
        code: the kind of failure, by the host's name of it, such as ``operation`` (it raised),
            ``not-found``, ``ended``, ``deadline``, ``reentrant``, ``backpressure``.
        type_name: name of the class that the operation raised; only text. "" where it raised none.
    """

    code = ""
    type_name = ""

    @classmethod
    def of(cls, code: str, type_name: str, text: str) -> CallError:
        """Return one that knows what happened."""
        error = cls(text)
        error.code, error.type_name = code, type_name
        return error


class StreamBrokenError(PluginSdkError):
    """A stream that was passed to the operation was cut off before its end; the text says why."""


class PluginStoppingError(PluginSdkError, RuntimeError):
    """The plugin is being unloaded: nothing can be published any more."""
