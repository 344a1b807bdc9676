"""The dossier command: what happened first, nothing that a terminal would obey, strict removal."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from sandbox_host.model import Cause, Usage
from sandbox_host.observe.dossier import Exceeded, FrameHeader
from sandbox_host.observe.dossiers import DossierStore
from tests.support.command_line import LocalCommandLine
from tests.support.dossier_examples import ENDED_AT, example

FIRST = "20260131T120000-hog-4711"


@pytest.fixture
def kept(cli: LocalCommandLine) -> DossierStore:
    cli.state_dir.mkdir(parents=True)
    return DossierStore(cli.state_dir / "dossiers", max_bytes=256 * 1024, kept=100)


def later(hours: float, **changed: Any):
    return example(ended_at=ENDED_AT + 3_600 * hours, **changed)


# -- list --------------------------------------------------------------------------------------


def test_none(cli: LocalCommandLine) -> None:
    ran = cli("dossier", "list")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"{cli.state_dir / 'dossiers'}: 0 dossiers\n"
    assert not cli.state_dir.exists()
    ran = cli("dossier", "show")
    assert (ran.code, ran.out) == (1, "")
    assert "There is no dossier in" in ran.err


def test_the_newest_is_listed_first(cli: LocalCommandLine, kept: DossierStore) -> None:
    kept.write(example())
    newer = kept.write(later(1, plugin="other", cause=Cause.CRASHED, text="other crashed."))
    ran = cli("dossier", "list")
    assert (ran.code, ran.err) == (0, "")
    rows = [line.split() for line in ran.out.splitlines()[3:]]
    assert rows[0] == [newer, "crashed", "other", "crashed."]
    assert rows[1][:2] == [FIRST, "memory"]
    ran = cli("dossier", "list", "--plugin", "Other", "--format", "json")
    told = json.loads(ran.out)
    assert [one["id"] for one in told["dossiers"]] == [newer]
    assert (told["dossiers"][0]["cause"], told["damaged"]) == ("crashed", [])


def test_a_damaged_one_is_told_and_the_others_are_listed(
    cli: LocalCommandLine, kept: DossierStore
) -> None:
    kept.write(example())
    bad = kept.write(later(1))
    (kept.path(bad) / "summary.json").write_text('{"format": "\x1b[2J"}')
    ran = cli("dossier", "list")
    assert ran.code == 1
    assert FIRST in ran.out
    assert f"note: The dossier {bad} is not as the host wrote it" in ran.err
    assert "\x1b" not in ran.out + ran.err
    told = json.loads(cli("dossier", "list", "--format", "json").out)
    assert [one["id"] for one in told["damaged"]] == [bad]
    ran = cli("dossier", "show")
    assert (ran.code, ran.out) == (1, "")
    assert cli("dossier", "show", FIRST).code == 0


# -- show --------------------------------------------------------------------------------------


def test_what_is_shown_and_in_which_order(cli: LocalCommandLine, kept: DossierStore) -> None:
    kept.write(example())
    ran = cli("dossier", "show", FIRST)
    assert (ran.code, ran.err) == (0, "")
    lines = ran.out.splitlines()
    assert lines[:2] == [
        "hog 1.0.0 ended: memory",
        "hog exceeded its budget memory in grow: 80 MiB of 64 MiB.",
    ]
    told = " ".join(ran.out.split())
    order = [
        "exceeded memory: 64 MiB allowed, 80 MiB used",
        "enforced by cgroup, memory.max; watchdog, every 20 ms",
        "operation grow",
        "place main.py:7 in grow (the word of its own process)",
        "exit signal 9 (SIGKILL), sent by this host; it was held still before it was ended",
        "process 4711, for 2.5 s",
        "ended 2026-01-31 12:00:00 UTC",
        "What to do next: * Look at the curve",
        "What it used, with 3 calls answered, 1 of them with an error:",
        "memory 80 MiB at most 64 MiB cgroup, memory.max; watchdog, every 20 ms",
        "cpu_total 1.25 s 24 h rlimits, RLIMIT_CPU",
        "Over time, since its start:",
        "0.00 s 0 B # 0.00 s 2 9",
        "2.50 s 75 MiB ######################## 1.25 s 2 9",
        "Last messages, without what they carried:",
        "1.500 s to it call 1 40 B grow",
        "1.250 s from it publish 120 B data_processed",
        "Python stacks, only the word of its own process:",
        '| File "main.py", line 7 in grow',
        "Last lines that it printed: | starting | growing \\x1b[2J",
    ]
    places = [told.index(part) for part in order]
    assert places == sorted(places)


def test_the_newest_is_shown_if_none_is_named(cli: LocalCommandLine, kept: DossierStore) -> None:
    kept.write(example())
    kept.write(later(1, version="2.0.0"))
    first = cli("dossier", "show")
    assert first.out.startswith("hog 2.0.0 ended")
    assert cli("dossier", "show", "latest").out == first.out


def test_all_of_it_as_json(cli: LocalCommandLine, kept: DossierStore) -> None:
    kept.write(example())
    told = json.loads(cli("dossier", "show", "--format", "json").out)
    assert (told["schema_version"], told["id"]) == (1, FIRST)
    assert told["directory"] == str(kept.path(FIRST))
    assert told["excess"] == {
        "budget": "memory",
        "limit": 64.0 * 1024 * 1024,
        "used": 80.0 * 1024 * 1024,
        "unit": "bytes",
    }
    assert len(told["curve"]) == 26
    assert told["log"] == list(example().log)


@pytest.mark.parametrize("columns", [80, 100])
def test_it_fits_and_nothing_in_it_is_obeyed(
    cli: LocalCommandLine, kept: DossierStore, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil = "\x1b[2J\r[red]" + "wide字" * 60
    kept.write(
        example(
            version=evil, text=evil, operation=evil, place=evil, stacks=f"{evil}\n" * 99,
            log=(evil,) * 99, frames=(FrameHeader(1.0, "in", evil, 1, 1, evil),) * 99,
        )
    )  # fmt: skip
    monkeypatch.setenv("COLUMNS", str(columns))
    ran = cli("dossier", "show")
    assert ran.code == 0
    assert "\x1b" not in ran.out
    assert "\r" not in ran.out
    assert "[red]" in ran.out
    assert "(40 of 99 lines):" in ran.out
    assert "(20 of 99 lines):" in ran.out
    for line in ran.out.splitlines():
        if "/dossiers/" not in line:
            assert len(line) <= columns


def test_what_is_not_known_is_left_out(cli: LocalCommandLine, kept: DossierStore) -> None:
    kept.write(
        example(
            cause=Cause.UNKNOWN, excess=None, operation="", place="", exit_signal=None, curve=(),
            frames=(), log=(), stacks="", limits=(), layers=(), usage=Usage(), frozen=False,
        )
    )  # fmt: skip
    ran = cli("dossier", "show")
    told = " ".join(ran.out.split())
    assert ran.code == 0
    assert "exit not known process" in told
    assert "layers none" in told
    for absent in ("exceeded ", "operation ", "place ", "Over time", "Last", "Python stacks"):
        assert absent not in ran.out.split("What it used")[0].split("\n", 2)[2]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"exit_signal": None, "exit_code": 3}, "exit status 3"),
        ({"exit_signal": 64, "frozen": False}, "exit signal 64 (SIGRTMAX) process"),
        ({"exit_signal": 99, "frozen": False}, "exit signal 99 process"),
        ({"excess": Exceeded("cpu", 1.0, None, "seconds")}, "exceeded cpu: 1 s allowed enforced"),
        ({"excess": Exceeded("odd", 3, 4, "things")}, "odd: 3 things allowed, 4 things used oper"),
        (
            {"excess": Exceeded("cpu", 1.0, 1.25, "seconds"), "cause": Cause.CPU},
            "cpu_time 1.25 s 60 s an operation watchdog",
        ),
    ],
)
def test_variants(
    cli: LocalCommandLine, kept: DossierStore, changed: dict[str, Any], told: str
) -> None:
    kept.write(example(**changed))
    assert told in " ".join(cli("dossier", "show").out.split())


@pytest.mark.parametrize("command", ["show", "remove"])
def test_one_that_is_not_there(cli: LocalCommandLine, kept: DossierStore, command: str) -> None:
    kept.write(example())
    for name, why in (("20260131T120000-hog-1", "There is no dossier"), ("../x", "is no id")):
        ran = cli("dossier", command, name)
        assert (ran.code, ran.out) == (1, "")
        assert why in ran.err
    assert kept.ids() == (FIRST,)


# -- remove ------------------------------------------------------------------------------------


def test_removing_by_id_and_all(cli: LocalCommandLine, kept: DossierStore) -> None:
    written = [kept.write(later(hour)) for hour in range(4)]
    ran = cli("dossier", "remove", written[0], written[2])
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"removed {written[0]}\nremoved {written[2]}\n"
    assert kept.ids() == (written[3], written[1])
    assert cli("dossier", "remove", "--all").code == 0
    assert kept.ids() == ()
    ran = cli("dossier", "remove", "--all")
    assert (ran.code, ran.out) == (0, "")
    assert "none to remove" in ran.err


def test_removing_old_ones(cli: LocalCommandLine, kept: DossierStore) -> None:
    now = datetime.now(UTC)
    by_age = {
        days: kept.write(example(ended_at=(now - timedelta(days=days, hours=1)).timestamp()))
        for days in (0, 5, 40)
    }
    assert cli("dossier", "remove", "--older-than", "30").out == f"removed {by_age[40]}\n"
    assert cli("dossier", "remove", "--older-than", "5").out == f"removed {by_age[5]}\n"
    assert kept.ids() == (by_age[0],)


@pytest.mark.parametrize(
    "arguments", [(), (FIRST, "--all"), ("--all", "--older-than", "1"), ("--older-than", "-1")]
)
def test_what_is_not_clear_removes_nothing(
    cli: LocalCommandLine, kept: DossierStore, arguments: tuple[str, ...]
) -> None:
    kept.write(example())
    ran = cli("dossier", "remove", *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert kept.ids() == (FIRST,)


def test_a_path_stays_in_one_piece(cli: LocalCommandLine, tmp_path: Path) -> None:
    state = tmp_path / "a  name with spaces" / ("and-very-long" * 10)
    state.mkdir(parents=True)
    store = DossierStore(state / "dossiers", max_bytes=2**18, kept=9)
    store.write(example())
    shown = cli("dossier", "show", "--state-dir", state).out
    assert f"  dossier       {store.path(FIRST)}" in shown.splitlines()


def test_the_configuration_and_the_option_name_the_state_directory(
    cli: LocalCommandLine, tmp_path: Path
) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        store = DossierStore(tmp_path / name / "dossiers", max_bytes=256 * 1024, kept=9)
        store.write(example(plugin=name))
    config = tmp_path / "host.toml"
    config.write_text('state_dir = "one"\n')
    assert cli("dossier", "show", "--config", config).out.startswith("one 1.0.0")
    shown = cli("dossier", "show", "--config", config, "--state-dir", tmp_path / "two")
    assert shown.out.startswith("two 1.0.0")


def test_who_sent_the_signal_is_told_where_it_was_the_host(
    cli: LocalCommandLine, kept: DossierStore
) -> None:
    outside = {"excess": None, "frozen": False}
    for cause, told in (
        (Cause.PROTOCOL_VIOLATION, True), (Cause.START_FAILED, True), (Cause.KILLED, False),
        (Cause.UNKNOWN, False), (Cause.MEMORY, False),
    ):  # fmt: skip
        kept.write(example(cause=cause, **outside))
        assert ("sent by this host" in cli("dossier", "show").out) is told
        kept.remove(kept.ids()[0])


def test_an_operation_that_was_over_is_told_as_such(
    cli: LocalCommandLine, kept: DossierStore
) -> None:
    asked = FrameHeader(2.0, "out", "call", 7, 9, "grow")
    answer = FrameHeader(1.0, "in", "result", 7, 9, "grow")
    again = FrameHeader(0.5, "out", "call", 8, 9, "grow")
    for frames, told in (
        ((asked, answer), "operation grow, which it had answered exit"),
        ((asked, answer, again), "operation grow exit"),
        ((), "operation grow exit"),
    ):
        kept.write(example(frames=frames, place="", exit_signal=None))
        assert told in " ".join(cli("dossier", "show").out.split())
        kept.remove(FIRST)


def test_who_was_not_looked_at_used_an_unknown_amount(
    cli: LocalCommandLine, kept: DossierStore
) -> None:
    kept.write(example(usage=Usage(calls=1)))
    told = " ".join(cli("dossier", "show").out.split())
    assert "What it used, with 1 call answered:" in told
    assert "threads not seen 64 cgroup" in told


def test_the_end_of_the_curve_is_that_of_the_process(
    cli: LocalCommandLine, kept: DossierStore
) -> None:
    kept.write(example(curve=example().curve[:2], usage=Usage(cpu_seconds=0.06)))
    lines = [" ".join(line.split()) for line in cli("dossier", "show").out.splitlines()]
    assert "2.50 s the end 0.06 s" in lines
    assert "Over time, since its start:" in lines
