"""Landlock's tables: each ABI denies what it can, and a rule holds only what the kernel accepts."""

from __future__ import annotations

import pytest

from sandbox_host.backends.linux.landlock import (
    EXECUTE,
    OWN,
    READ,
    READ_DIR,
    READ_FILE,
    REFER,
    TRUNCATE,
    WRITE,
    WRITE_FILE,
    Place,
    rules_for,
    ruleset_for,
)

# Number of rights by ABI, from Documentation/userspace-api/landlock.rst.
RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15, 5: 16, 6: 16, 7: 16, 99: 16}


@pytest.mark.parametrize(("abi", "rights"), RIGHTS.items())
def test_every_right_of_an_abi_is_denied(abi: int, rights: int) -> None:
    ruleset = ruleset_for(abi)
    assert ruleset.fs == (1 << rights) - 1
    assert ruleset.net == (0b11 if abi >= 4 else 0)
    assert ruleset.scoped == (0b11 if abi >= 6 else 0)
    assert ruleset.abi == abi


def test_nothing_is_handled_without_landlock() -> None:
    ruleset = ruleset_for(0)
    assert (ruleset.fs, ruleset.net, ruleset.scoped) == (0, 0, 0)


@pytest.mark.parametrize("abi", RIGHTS)
def test_rules_never_hold_a_right_the_abi_does_not_know(abi: int) -> None:
    ruleset = ruleset_for(abi)
    places = [Place("/d", OWN, is_directory=True), Place("/f", OWN, is_directory=False)]
    for _, rights in rules_for(ruleset, places):
        assert isinstance(rights, int)
        assert rights & ~ruleset.fs == 0


def test_rules_of_a_file_hold_no_right_of_a_directory() -> None:
    ((path, rights),) = rules_for(ruleset_for(7), [Place("/f", OWN, is_directory=False)])
    assert path == "/f"
    assert rights == READ_FILE | WRITE_FILE | TRUNCATE


def test_rule_about_what_was_found_has_its_identity() -> None:
    place = Place("/d", WRITE, is_directory=True, identity=(7, 9))
    assert rules_for(ruleset_for(7), [place]) == [["/d", WRITE, [7, 9]]]


def test_writing_is_not_reading() -> None:
    assert WRITE | READ == OWN
    assert not WRITE & READ


def test_no_place_is_ever_executable() -> None:
    assert not (READ | OWN) & EXECUTE


def test_own_directory_makes_no_links_sockets_or_devices() -> None:
    make_char, make_sock, make_fifo, make_block, make_sym = (
        1 << 6,
        1 << 9,
        1 << 10,
        1 << 11,
        1 << 12,
    )
    ioctl_dev = 1 << 15
    assert not OWN & (make_char | make_sock | make_fifo | make_block | make_sym | ioctl_dev)
    assert OWN & REFER
    assert READ == READ_FILE | READ_DIR
