"""Unit tests of a plugin's own functions, in the test's process.

**This is no sandbox.** The plugin's code runs with everything the test may do: nothing is signed,
confined, limited or killed. It shows that the functions compute what they should. How the plugin
fares under confinement is shown by ``sandbox-host check`` and by the fixture of
``sandbox_host.testing``, which run it in the real sandbox.

::

    from plugin_sdk.testing import plugin_context

    def test_scales():
        with plugin_context(config={"factor": 2}) as test:
            from weather_features import main
            assert main.process([1, 2]) == [2, 4]
            assert test.published == [("data_processed", {"rows": 2})]
"""

from __future__ import annotations

import tempfile
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

from plugin_sdk.context import Context, install_context
from plugin_sdk.wire.codec import pack, unpack

__all__ = ["PluginTest", "plugin_context"]


@dataclass
class PluginTest:
    """What `plugin_context` hands to a test.

    Attributes:
        context: what `plugin_sdk.context` returns inside the block.
        published: ``(event type, data)`` of everything that was published, in order, as a
            subscriber would get it: a tuple has become a list.
    """

    context: Context
    published: list[tuple[str, Any]] = field(default_factory=list)


class _Everything(frozenset[str]):
    def __contains__(self, item: object) -> bool:
        return True


@contextmanager
def plugin_context(
    config: dict[str, Any] | None = None,
    *,
    name: str = "plugin_under_test",
    data_dir: str | None = None,
    scratch_dir: str | None = None,
    publish: Collection[str] | None = None,
) -> Iterator[PluginTest]:
    """Let `plugin_sdk.context` work inside the block, without a host and without a sandbox.

    Args:
        config: the plugin's configuration; sent through the wire format, as the real one is.
        name: the plugin's identity.
        data_dir: its data directory; a temporary one where it is None.
        scratch_dir: its scratch directory; a temporary one where it is None.
        publish: event types it may publish; None means any.

    Yields:
        The context and the list of what is published.

    Raises:
        plugin_sdk.wire.errors.PayloadError: the configuration has values that no plugin.json has.
    """
    with ExitStack() as stack:
        temporary = tempfile.TemporaryDirectory

        def send(event_type: str, payload: bytes) -> None:
            test.published.append((event_type, unpack(payload)))

        context = Context(
            name,
            config=unpack(pack(config or {})),
            data_dir=data_dir or stack.enter_context(temporary(prefix="plugin-data-")),
            scratch_dir=scratch_dir or stack.enter_context(temporary(prefix="plugin-scratch-")),
            publishable=_Everything() if publish is None else frozenset(publish),
            send=send,
        )
        test = PluginTest(context)
        replaced = install_context(context)
        stack.callback(install_context, replaced)
        yield test
