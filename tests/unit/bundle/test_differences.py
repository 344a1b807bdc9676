from __future__ import annotations

import dataclasses

from sandbox_host.bundle.differences import differences, first_difference
from sandbox_host.bundle.envelope import list_files

SIGNED = list_files({"a": b"1", "b": b"2", "c": b"3", "d": b"4"})


def test_nothing_differs() -> None:
    assert differences(SIGNED, {"a": b"1", "b": b"2", "c": b"3", "d": b"4"}) == []
    assert differences((), {}) == []


def test_every_kind_at_once_in_the_order_of_paths() -> None:
    found = differences(SIGNED, {"a": b"2", "b": b"1", "e": b"3", "d": b"!", "f": b"new"})
    kinds = [text.split(":")[0].split(";")[0].split(" (")[0] for text in found]
    assert kinds == [
        "'a' and 'b' swapped their names",
        "'c' was renamed to 'e'",
        "'d' was changed",
        "'f' was added",
    ]


def test_two_removed_files_of_one_content_and_one_new_name() -> None:
    signed = list_files({"a": b"same", "b": b"same"})
    assert [text.split(";")[0] for text in differences(signed, {"x": b"same"})] == [
        "'a' was renamed to 'x'",
        "'b' was removed",
    ]


def test_a_rotation_of_three_names_is_a_change() -> None:
    found = differences(SIGNED[:3], {"a": b"2", "b": b"3", "c": b"1"})
    assert [text.split(":")[0] for text in found] == [f"'{n}' was changed" for n in "abc"]


def test_a_size_that_lies() -> None:
    lie = (dataclasses.replace(SIGNED[0], size=7),)
    assert differences(lie, {"a": b"1"}) == ["'a' does not have the 7 bytes signed"]


def test_hostile_names_are_escaped() -> None:
    (text,) = differences((), {"x\n::error::y": b""})
    assert "\n" not in text


def test_thousands_of_differences_take_no_quadratic_time() -> None:
    signed = list_files({f"old{i}": b"%d" % i for i in range(2_000)})
    assert len(differences(signed, {f"new{i}": b"%d" % i for i in range(2_000)})) == 2_000
    assert len(differences(signed, {f"old{i}": b"x%d" % i for i in range(2_000)})) == 2_000


def test_the_first_difference_is_that_of_the_first_sentence() -> None:
    digests = {entry.path: entry.sha256 for entry in SIGNED}
    same = {"a": b"1", "b": b"2", "c": b"3", "d": b"4"}
    assert first_difference(SIGNED, same) is None
    assert first_difference(SIGNED, {**same, "b": b"4"}) == ("b", digests["b"], digests["d"])
    assert first_difference(SIGNED, {**same, "0": b"4"}) == ("0", "", digests["d"])
    del same["c"]
    assert first_difference(SIGNED, same) == ("c", digests["c"], "")
    # Renamed: the text begins with the old name, which comes after the new one.
    renamed = {**same, "0": b"3"}
    assert differences(SIGNED, renamed)[0].startswith("'c' was renamed to '0'")
    assert first_difference(SIGNED, renamed) == ("c", digests["c"], "")
