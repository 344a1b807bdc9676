"""A plugin that takes its own pipes over and says on them whatever a case wants, byte by byte.

What it does is a list of steps, packed, in a file of its data directory (`write_steps`). It runs at
import, so that it is hostile from the first moment that it can be, with no runtime in between.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import msgpack

from plugin_sdk.wire.codec import pack
from plugin_sdk.wire.message import Message
from plugin_sdk.wire.messages import Ready

Step = tuple[Any, ...]

SOURCE = '''
import os, signal, struct, time
from plugin_sdk import context
from plugin_sdk.wire.codec import pack, unpack

IN, OUT = 3, 4
os.set_blocking(IN, True)
os.set_blocking(OUT, True)
held, last_call = b"", 0

def say(data):
    while data:
        data = data[os.write(OUT, data):]

def say_result(number, value):
    header, payload = pack([7, number]), pack(value)
    say(struct.pack(">II", len(header), len(payload)) + header + payload)

def hear():
    """Return the header and the payload of the next message, or end with the host."""
    global held
    while True:
        if len(held) >= 8:
            first, second = struct.unpack(">II", held[:8])
            if len(held) >= 8 + first + second:
                header, payload = unpack(held[8:8 + first]), held[8 + first:8 + first + second]
                held = held[8 + first + second:]
                return header, payload
        data = os.read(IN, 65536)
        if not data:
            os._exit(0)
        held += data

def await_message(number):
    global last_call
    while True:
        header, payload = hear()
        if header[0] == 6:
            last_call = header[1]
        if header[0] == number:
            return header, payload

def serve():
    """An ordinary plugin from here on."""
    while True:
        header, payload = hear()
        if header[0] == 6:
            say_result(header[1], unpack(payload)[0][0])
        elif header[0] == 12:
            say(bytes([0, 0, 0, 2, 0, 0, 0, 5, 0x91, 13, 0x81, 0xA2]) + b"ok" + bytes([0xC3]))
            os._exit(0)

def play(step, arguments):
    if step == "say":
        say(arguments[0])
    elif step == "repeat":
        data, count = arguments
        most = max(1, 65536 // len(data))
        while count:
            say(data * min(count, most))
            count -= min(count, most)
    elif step == "drip":
        for byte in arguments[0]:
            say(bytes([byte]))
            time.sleep(arguments[1])
    elif step == "await":
        await_message(arguments[0])
    elif step == "answer":
        say_result(last_call, arguments[0])
    elif step == "close":
        os.close(arguments[0])
    elif step == "serve":
        serve()
    elif step == "hang":
        while True:
            time.sleep(60)
    elif step == "exit":
        os._exit(0)

signal.signal(signal.SIGUSR2, signal.SIG_IGN)
with open(context().data_dir + "/steps", "rb") as file:
    script = unpack(file.read())
try:
    for name, *arguments in script:
        play(name, arguments)
except BaseException as error:  # or else the real runtime would say something of its own
    print(repr(error), flush=True)
play("hang", [])
'''


def write_steps(path: Path, steps: list[Step]) -> None:
    """Leave what the plugin shall do where it looks."""
    path.write_bytes(pack([list(step) for step in steps]))


# -- bytes ----------------------------------------------------------------------------------------


def raw(header: bytes, payload: bytes = b"") -> bytes:
    """Return any header and payload as a frame."""
    return struct.pack(">II", len(header), len(payload)) + header + payload


def elsewhere(message: Message, size: int) -> bytes:
    """Return the frame of a payload of so many bytes that is said to be in the arena."""
    header = message.header()
    return struct.pack(">II", len(header), size + (1 << 31)) + header


def fields(*values: Any, payload: bytes = b"") -> bytes:
    """Return any number and fields as a frame."""
    return raw(msgpack.packb(list(values), unicode_errors="surrogatepass"), payload)


def frames(*messages: Message) -> bytes:
    """Return messages as bytes, whether or not the protocol allows them now."""
    return b"".join(raw(message.header(), message.payload) for message in messages)


def ready(**more: Any) -> bytes:
    """Return the message of a plugin that has loaded; ``more`` are keys of its payload."""
    told = {
        "metadata": {},
        "operations": [{"name": "echo", "kind": "operation"}],
        "handles": ["data_processed"],
        "kind": None,
        "warnings": [],
        **more,
    }
    return frames(Ready(payload=pack(told)))
