"""The permission ``env``: refused without a grant, working with it, and no value anywhere else.

`tests.support.granted_variables` is the host; as root and as an ordinary user.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sandbox_host import SandboxHost
from sandbox_host.errors import AdmissionError, ConfigError, ConfinementError, ManifestError
from sandbox_host.terms import MAX_VARIABLE_BYTES, RESERVED_VARIABLES
from tests.support.granted_variables import GRANTED, OTHER, UNSET
from tests.support.host import Workshop
from tests.support.users import USERS, outcomes

pytestmark = pytest.mark.needs("landlock", "seccomp")

OWN = {
    *("LANG", "MALLOC_ARENA_MAX", "TZ", "HOME", "TMPDIR", "OPENBLAS_NUM_THREADS"),
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "BLIS_NUM_THREADS", "NUMEXPR_NUM_THREADS"),
    "VECLIB_MAXIMUM_THREADS",
}

SOURCE = """
@operation
def variable(name):
    return os.environ.get(name)
"""

Outcome = Callable[[str], Any]


@pytest.fixture(scope="module")
def outcome() -> Iterator[Outcome]:
    """Return a function of a user: what came of it."""
    with outcomes("tests.support.granted_variables") as run:
        yield run


@pytest.mark.parametrize("user", USERS)
class TestGranted:
    """What a plugin that was granted variables sees, and what is told of them."""

    def test_it_sees_what_it_was_granted(self, outcome: Outcome, user: str) -> None:
        found = outcome(user)
        assert found["seen"][GRANTED] == found["value"]
        assert found["native"] == [found["value"], None]

    def test_it_sees_nothing_else(self, outcome: Outcome, user: str) -> None:
        """Not what was granted and not requested, either."""
        assert set(outcome(user)["seen"]) == OWN | {GRANTED}

    def test_values_are_those_of_the_moment_of_loading(self, outcome: Outcome, user: str) -> None:
        found = outcome(user)
        assert found["seen"][GRANTED] == found["value"] != "set later"
        assert found["again"] == "set later"

    def test_what_it_changes_is_its_own(self, outcome: Outcome, user: str) -> None:
        assert outcome(user)["host"] == "set later"

    def test_a_variable_that_is_not_set_is_absent_and_told(
        self, outcome: Outcome, user: str
    ) -> None:
        found = outcome(user)
        told = f"it is granted the environment variable {UNSET}, which is not set in the host"
        assert told in found["logged"]
        assert f"{GRANTED}, which is not set" not in found["logged"]

    def test_the_receipt_has_the_names(self, outcome: Outcome, user: str) -> None:
        found = outcome(user)
        assert found["env"] == [
            [GRANTED, "handed over at the start"],
            [UNSET, "not set in the host, and so absent"],
        ]
        assert found["layer"] == f"{len(OWN) + 1} variables, of the host's {GRANTED}"

    def test_no_value_is_kept_anywhere(self, outcome: Outcome, user: str) -> None:
        """Neither in receipt, log or journal, nor in the dossier of its crash."""
        found = outcome(user)
        assert "SIGSEGV" in found["crash"]
        assert found["gone"]
        assert found["dossiers"] == 1
        assert found["files"] > 5
        assert found["found in"] == []
        assert found["value"] not in found["receipt"] + found["logged"] + found["crash"]
        assert GRANTED in found["receipt"]


# -- without a grant ------------------------------------------------------------------------------


def test_denied_with_the_line_that_would_grant_it(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GRANTED, "value")
    bundle = workshop.write(SOURCE, permissions={"env": [GRANTED, OTHER]})
    half = workshop.config(grants={"sample": {"env": [OTHER]}})
    with SandboxHost.blocking(half) as host, pytest.raises(AdmissionError) as caught:
        host.load(bundle)
    assert str(caught.value) == (
        "Plugin sample is not admitted: plugin.json: permissions.env[0]: seeing the variable "
        f'"{GRANTED}" is not granted. To grant it, write in the host\'s TOML under '
        f'[grants."sample"]: env = ["{GRANTED}"].'
    )
    table, _, line = caught.value.remedy.partition("under ")[2].removesuffix(".").partition(": ")
    grants = tomllib.loads(f"{table}\n{line}")["grants"]
    both = workshop.config(grants={**grants, "*": {"env": [OTHER]}})
    with SandboxHost.blocking(both) as host:
        assert host.load(bundle).call("variable", GRANTED) == "value"


def test_case_matters(workshop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(GRANTED, "value")
    bundle = workshop.write(SOURCE, permissions={"env": [GRANTED]})
    config = workshop.config(grants={"sample": {"env": [GRANTED.lower()]}})
    with SandboxHost.blocking(config) as host, pytest.raises(AdmissionError, match=GRANTED):
        host.load(bundle)


@pytest.mark.parametrize("name", ["LD_PRELOAD", "PYTHONPATH", "HOME", "OMP_NUM_THREADS"])
def test_what_changes_the_interpreter_is_refused_on_both_sides(
    workshop: Workshop, name: str
) -> None:
    told = f'"{name}" can be neither requested nor granted: '
    with pytest.raises(ConfigError, match=rf"grants\.sample\.env\[0\]: {told}"):
        workshop.config(grants={"sample": {"env": [name]}})
    with (
        SandboxHost.blocking(workshop.config()) as host,
        pytest.raises(ManifestError, match=rf"permissions\.env\[0\]: {told}"),
    ):
        host.load(workshop.write(permissions={"env": [name]}))


@pytest.mark.parametrize("start", ["nursery", "exec"])
def test_the_longest_value(workshop: Workshop, monkeypatch: pytest.MonkeyPatch, start: str) -> None:
    value = "é" * (MAX_VARIABLE_BYTES // 2)
    monkeypatch.setenv(GRANTED, value)
    bundle = workshop.write(SOURCE, permissions={"env": [GRANTED]})
    config = workshop.config(grants={"sample": {"env": [GRANTED]}}, start=start)
    with SandboxHost.blocking(config) as host:
        assert host.load(bundle).call("variable", GRANTED) == value


@pytest.mark.parametrize(
    ("value", "told"),
    [("x" * (MAX_VARIABLE_BYTES + 1), "32769 bytes, more than 32 KiB"), ("x\udcff", "UTF-8")],
    ids=["too long", "no text"],
)
def test_a_value_that_cannot_be_handed_over_is_refused_not_cut(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch, value: str, told: str
) -> None:
    monkeypatch.setenv(GRANTED, value)
    bundle = workshop.write(SOURCE, permissions={"env": [GRANTED]})
    config = workshop.config(grants={"sample": {"env": [GRANTED]}})
    with SandboxHost.blocking(config) as host:
        with pytest.raises(ConfinementError, match=told) as caught:
            host.load(bundle)
        assert caught.value.layer == "environment"
        assert "xx" not in str(caught.value)
        assert host.plugins == {}


def test_the_page_has_the_names_that_nobody_can_grant() -> None:
    page = Path(__file__).parents[2] / "docs" / "permissions.md"
    table = page.read_text(encoding="utf-8").split("<!-- variables -->\n")[1].split("\n\n")[0]
    rows = (line.strip("| ").split(" | ") for line in table.splitlines()[2:])
    said = [(name, why) for names, why in rows for name in re.findall(r"`([^`]+)`", names)]
    assert sorted(said) == sorted(RESERVED_VARIABLES)
