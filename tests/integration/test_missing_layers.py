"""On a kernel without a layer: refused by its name, unless the operator accepted that by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.host import Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp")

REPOSITORY = Path(__file__).parents[2]
SECCOMP = {"x86_64": 317, "aarch64": 277}[os.uname().machine]
LANDLOCK_CREATE, LANDLOCK_RESTRICT = 444, 446

PASSWD = """
with open(context().data_dir + "/executed", "w") as marker:
    marker.write("yes")

@operation
def passwd():
    return open("/etc/passwd").read()
"""


def on_lesser_kernel(workshop: Workshop, missing: list[int], accepted: list[str]) -> Any:
    bundle = workshop.write(PASSWD)
    arguments = [workshop.trust_store, workshop.state_dir, bundle]
    arguments += [json.dumps(missing), json.dumps(accepted)]
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.lesser_kernel", *map(str, arguments)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=50,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def executed(workshop: Workshop) -> bool:
    return (workshop.data_dir("sample") / "executed").exists()


@pytest.mark.parametrize(
    ("missing", "layer"), [(LANDLOCK_CREATE, "landlock"), (SECCOMP, "seccomp")]
)
def test_missing_layer_is_refused_by_name(workshop: Workshop, missing: int, layer: str) -> None:
    outcome = on_lesser_kernel(workshop, [missing], [])
    assert outcome["refused"] == layer
    assert f'accept_missing = ["{layer}"]' in outcome["text"]
    assert not executed(workshop)


def test_another_accepted_layer_does_not_help(workshop: Workshop) -> None:
    assert on_lesser_kernel(workshop, [LANDLOCK_CREATE], ["seccomp"])["refused"] == "landlock"
    assert not executed(workshop)


def test_layer_that_fails_only_in_the_child_is_refused_by_name(workshop: Workshop) -> None:
    """The kernel offered it when it was asked; accepting a missing layer is not for this."""
    outcome = on_lesser_kernel(workshop, [LANDLOCK_RESTRICT], ["landlock"])
    assert outcome["refused"] == "landlock"
    assert not executed(workshop)


def test_accepted_by_name_runs_and_the_receipt_says_so(workshop: Workshop) -> None:
    outcome = on_lesser_kernel(workshop, [LANDLOCK_CREATE], ["landlock"])
    assert executed(workshop)
    status, detail = outcome["layers"]["landlock"]
    assert status == "unavailable"
    assert "not implemented" in detail
    assert outcome["layers"]["seccomp"][0] == "active"
    assert outcome["passwd"] == "read"


def test_without_seccomp_landlock_still_holds(workshop: Workshop) -> None:
    outcome = on_lesser_kernel(workshop, [SECCOMP], ["seccomp"])
    assert outcome["layers"]["seccomp"][0] == "unavailable"
    assert outcome["layers"]["landlock"][0] == "active"
    assert outcome["passwd"] == "PermissionError"


def test_with_all_calls_the_same_script_confines(workshop: Workshop) -> None:
    outcome = on_lesser_kernel(workshop, [65_535], [])
    assert {status for status, _ in outcome["layers"].values()} == {"active"}
    assert outcome["passwd"] == "PermissionError"
