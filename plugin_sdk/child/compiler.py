"""Compiles a plugin's sources and runs none of them: what a process does instead of importing.

The host asks for this in a process that ends right after it. Each result is what would lie in
``__pycache__``, whole, and goes to the host as bytes, which it keeps for this plugin and never
looks into. Here as everywhere, a source may be hostile: one that the compiler fails on is left
out, and one that it dies of ends this process.
"""

from __future__ import annotations

import marshal  # noqa: TID251 - only written here; read by the import system of the plugin's process
import os
import warnings
from importlib.util import MAGIC_NUMBER, cache_from_source, source_hash

from plugin_sdk.wire.codec import pack
from plugin_sdk.wire.limits import MAX_PAYLOAD_BYTES
from plugin_sdk.wire.messages import Publish, Ready

TYPE_CHECKING = False
if TYPE_CHECKING:
    from plugin_sdk.child.io import ChildChannel

# PEP 552: the hash of the source is in it and is not compared. The copy that it lies beside cannot
# be written to.
_UNCHECKED_HASH = (0b01).to_bytes(4, "little")


def compile_sources(channel: ChildChannel, package_dir: str, sources: list[str]) -> None:
    """Compile files of the private copy and send each result under its number.

    Args:
        channel: to the host. What is sent is an event of which the type is the number of the
            source and the tag that goes into the name of its ``.pyc``, as in ``0.cpython-311``,
            and the data that file; at the end `Ready`.
        package_dir: the private copy.
        sources: paths in it.
    """
    # Nobody reads them: whoever imports the source is told again by its author's own tools.
    warnings.simplefilter("ignore")
    for number, path in enumerate(sources):
        data = compiled(package_dir, path)
        if data is not None and len(data) <= MAX_PAYLOAD_BYTES:
            channel.send(Publish(f"{number}.{tag()}", payload=data))
    channel.send(Ready(payload=pack({})))


def compiled(package_dir: str, path: str) -> bytes | None:
    """Return the ``.pyc`` of a source, or None where it does not compile.

    Its code says that it is from `path`, as the private copy is elsewhere every time; whoever
    imports it corrects that.
    """
    try:
        with open(os.path.join(package_dir, path), "rb") as file:
            source = file.read()
        code = compile(source, path, "exec", dont_inherit=True)
        return MAGIC_NUMBER + _UNCHECKED_HASH + source_hash(source) + marshal.dumps(code)
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError, OSError):
        return None


def tag() -> str:
    """Return what stands between name and suffix of a file with byte code: ``cpython-311``."""
    name = os.path.basename(cache_from_source("name.py"))
    return name.removeprefix("name.").removesuffix(".pyc")
