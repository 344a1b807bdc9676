"""Checks of arrays in a process that has numpy: `python -m tests.support.with_numpy`.

The tests' own interpreter has none, as a host's need not; the plugin environment has.
"""

from __future__ import annotations

import itertools
import json
import sys
import tracemalloc
from collections.abc import Callable
from typing import Any

import numpy as np

from plugin_sdk.wire.codec import pack, unpack
from plugin_sdk.wire.errors import PayloadError, PayloadTooLargeError
from plugin_sdk.wire.limits import METADATA

CARRIED = ["?", "i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", ">i2", ">f4", ">f8"]
SHAPES = [(5,), (1,), (2, 3), (3, 1, 2), (0,), (0, 3), (3, 0), (2, 0, 4), (1,) * 8]


def same(sent: Any, back: Any) -> None:
    assert type(back) is np.ndarray, type(back)
    assert back.dtype == sent.dtype.newbyteorder("="), (sent.dtype, back.dtype)
    assert back.shape == sent.shape
    assert back.tobytes() == sent.astype(back.dtype).tobytes()
    assert not back.flags.writeable
    assert back.flags.aligned
    assert back.flags.c_contiguous


def orders_of(shape: tuple[int, ...], dtype: str) -> list[Any]:
    made = np.arange(np.prod(shape), dtype="i8").reshape(shape).astype(dtype)
    wide = np.repeat(made, 2, axis=-1)
    return [made, np.asfortranarray(made), made[::-1], made.T, wide[..., ::2]]


def check_every_array_comes_back_the_same() -> None:
    for dtype, shape in itertools.product(CARRIED, SHAPES):
        for sent in orders_of(shape, dtype):
            same(sent, unpack(pack(sent)))
            nested = unpack(pack({"a": [1, sent, b"x"], "b": sent}))
            same(sent, nested["a"][1])
            same(sent, nested["b"])


def check_without_numpy_a_memoryview_passes_it_on_unchanged() -> None:
    for dtype, shape in itertools.product(CARRIED, SHAPES[:6]):
        sent = orders_of(shape, dtype)[-1]
        packed = pack([sent])
        del sys.modules["numpy"]
        try:
            view = unpack(packed)[0]
            assert type(view) is memoryview, type(view)
            assert (view.shape, view.tolist()) == (sent.shape, sent.tolist())
            assert pack([view]) == packed
        finally:
            sys.modules["numpy"] = np


def check_lists_become_of_what_is_no_plain_array() -> None:
    for sent, expected in [
        (np.array(3.5), 3.5),
        (np.array(["a", "bc"]), ["a", "bc"]),
        (np.array([b"a"]), [b"a"]),
        (np.array([[1, None]], dtype=object), [[1, None]]),
        (np.array([1.5], dtype="f2"), [1.5]),
        (np.array([(1, 2.0)], dtype="i4,f8"), [[1, 2.0]]),
        (np.ma.masked_array([1, 2], [False, True]), [1, None]),
        (np.array([5], dtype="M8[ns]"), [5]),
    ]:
        assert unpack(pack([sent])) == [expected], expected


def check_scalars_stay_numbers() -> None:
    sent = [np.float32(1.5), np.float64(2.5), np.int8(-1), np.uint64(2**64 - 1), np.bool_(True)]
    back = unpack(pack(sent))
    assert back == [1.5, 2.5, -1, 2**64 - 1, True]
    assert [type(one) for one in back] == [float, float, int, int, bool]


def check_arrays_inside_of_arrays_of_objects() -> None:
    sent = np.empty(1, dtype=object)
    sent[0] = np.arange(3)
    same(sent[0], unpack(pack(sent))[0])


def check_what_cannot_be_carried() -> None:
    for sent in (np.array([1j]), np.array(["2020-01-01"], dtype="M8[D]"), np.array([object()])):
        try:
            pack(sent)
        except PayloadError:
            continue
        raise AssertionError(sent.dtype)


def check_what_is_too_large() -> None:
    large = np.zeros((3 << 20,), dtype="f8")
    for sent in (large, large[::2], large.reshape(2, -1).T):
        tracemalloc.start()
        try:
            pack(sent)
        except PayloadTooLargeError:
            assert tracemalloc.get_traced_memory()[1] < 500_000
        else:
            raise AssertionError(sent.shape)
        finally:
            tracemalloc.stop()


def check_booleans_that_are_none() -> None:
    try:
        pack(np.array([2], dtype="u1").view("?"))
    except PayloadError:
        return
    raise AssertionError


def check_metadata_gets_lists() -> None:
    assert unpack(pack({"sizes": np.arange(3)}, METADATA), METADATA) == {"sizes": [0, 1, 2]}


def check_maps_of_files(path: str = "/dev/zero") -> None:
    same(np.zeros(10), unpack(pack(np.memmap(path, dtype="f8", mode="r", shape=(10,)))))


CHECKS: dict[str, Callable[[], None]] = {
    name.removeprefix("check_"): check
    for name, check in list(globals().items())
    if name.startswith("check_")
}

if __name__ == "__main__":
    found = {}
    for name, check in CHECKS.items():
        try:
            check()
        except Exception as error:  # noqa: BLE001 - all of them are told
            found[name] = repr(error)
        else:
            found[name] = "ok"
    print(json.dumps(found))
