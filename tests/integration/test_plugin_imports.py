"""What a plugin can import: the standard library, itself, the plugin environment; nothing else."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from sandbox_host import SandboxHost
from sandbox_host.errors import ManifestError, OperationError, StartError
from sandbox_host.model import Limits
from tests.support.host import Load, Workshop

pytestmark = pytest.mark.needs("landlock", "seccomp")

IMPORTER = """
import importlib

@operation
def import_all(names):
    failed = {}
    for name in names:
        try:
            importlib.import_module(name)
        except BaseException as error:
            failed[name] = repr(error)
    return failed

@operation
def origin(name):
    return importlib.import_module(name).__file__

@operation
def forget():
    importlib.invalidate_caches()
"""
USUAL = [
    *("argparse", "array", "asyncio", "base64", "bisect", "calendar", "collections", "contextlib"),
    *("copy", "csv", "ctypes", "dataclasses", "datetime", "decimal", "difflib", "email.message"),
    *("enum", "fractions", "functools", "gzip", "hashlib", "heapq", "html.parser", "http.client"),
    *("inspect", "io", "itertools", "json", "logging", "lzma", "math", "multiprocessing"),
    *("pathlib", "pickle", "platform", "queue", "random", "re", "secrets", "shutil", "socket"),
    *("sqlite3", "ssl", "statistics", "string", "struct", "subprocess", "tempfile", "textwrap"),
    *("threading", "traceback", "typing", "unittest.mock", "urllib.request", "uuid", "zipfile"),
    *("xml.etree.ElementTree", "zlib", "zoneinfo"),
]


def test_standard_library(load: Load) -> None:
    assert load(IMPORTER).call("import_all", USUAL) == {}


def test_standard_library_after_the_caches_were_forgotten(load: Load) -> None:
    """The directory of the library may not be listed inside; what was found stays found."""
    plugin = load(IMPORTER)
    plugin.call("forget")
    assert plugin.call("import_all", USUAL) == {}


def test_nothing_of_the_hosts_is_there(load: Load) -> None:
    hosts = [
        "cryptography",
        "pydantic",
        "psutil",
        "click",
        "rich",
        "pytest",
        "sandbox_host",
        "tests",
    ]
    failed = load(IMPORTER).call("import_all", hosts)
    assert set(failed) == set(hosts)
    assert all(text.startswith("ModuleNotFoundError") for text in failed.values())


def test_plugin_environment(workshop: Workshop) -> None:
    environment = workshop.root / "environment"
    (environment / "wheel_of_ours").mkdir(parents=True)
    (environment / "wheel_of_ours" / "__init__.py").write_text("ANSWER = 42\n")
    source = IMPORTER + "\nfrom wheel_of_ours import ANSWER\n"
    with SandboxHost.blocking(workshop.config(plugin_environment=environment)) as host:
        plugin = host.load(workshop.write(source))
        assert Path(plugin.call("origin", "wheel_of_ours")).is_relative_to(environment)
    with (
        SandboxHost.blocking(workshop.config()) as host,
        pytest.raises(StartError, match="wheel_of_ours"),
    ):
        host.load(workshop.write(source))


def test_plugin_environment_comes_after_the_standard_library(workshop: Workshop) -> None:
    environment = workshop.root / "environment"
    environment.mkdir()
    (environment / "json.py").write_text("raise SystemExit('shadowed')")
    (environment / "plugin_sdk.py").write_text("raise SystemExit('shadowed')")
    with SandboxHost.blocking(workshop.config(plugin_environment=environment)) as host:
        plugin = host.load(workshop.write(IMPORTER))
        assert not Path(plugin.call("origin", "json")).is_relative_to(environment)
        assert plugin.call("import_all", ["json", "plugin_sdk"]) == {}


def test_plugins_do_not_see_each_other(host: object, load: Load) -> None:
    load(name="neighbour")
    plugin = load(IMPORTER + "\n@operation\ndef neighbour():\n    from neighbour import main\n")
    with pytest.raises(OperationError, match="ModuleNotFoundError"):
        plugin.call("neighbour")


@pytest.mark.parametrize("name", ["json", "plugin_sdk", "msgpack", "os"])
def test_name_of_a_module_that_is_there_already(workshop: Workshop, name: str) -> None:
    with pytest.raises(ManifestError, match=f"plugin.json: name: .*{name}"):
        workshop.write(name=name)


def test_no_byte_code_is_written(load: Load) -> None:
    plugin = load(files={"helper.py": "", "sub/__init__.py": ""})
    copy = plugin._process.places.package_dir
    assert [path.name for path in copy.rglob("*") if path.name == "__pycache__"] == []


NUMPY = """
import numpy

@operation
def multiply(n):
    ones = numpy.ones((n, n))
    return float((ones @ ones)[0, 0])
"""
WORK = """
import asyncio, ctypes, decimal, os, shutil, sqlite3, ssl, tempfile, threading, zoneinfo
from datetime import datetime

@operation
def work():
    base = sqlite3.connect(context().data_dir + "/base.sqlite")
    base.execute("create table if not exists t (n)")
    base.execute("insert into t values (1)")
    base.commit()
    ssl.create_default_context()

    async def answer():
        await asyncio.sleep(0.001)
        return 42

    found = [asyncio.run(answer())]
    thread = threading.Thread(target=lambda: found.append("thread"))
    thread.start()
    thread.join()
    with tempfile.NamedTemporaryFile() as file:
        file.write(b"x")
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o755)
        shutil.copy2(__file__, directory + "/copied")
        shutil.copytree(directory, context().scratch_dir + "/tree", dirs_exist_ok=True)
        shutil.move(directory + "/copied", context().data_dir + "/moved")
        os.utime(directory, (1, 1))
    found.append(str(datetime(2026, 7, 1, tzinfo=zoneinfo.ZoneInfo("Europe/Berlin")).utcoffset()))
    found.append(str(decimal.Decimal("0.1") + decimal.Decimal("0.2")))
    found.append(ctypes.sizeof(ctypes.c_long))
    return found

@operation
def load_foreign(data):
    path = context().data_dir + "/foreign.so"
    with open(path, "wb") as file:
        file.write(data)
    ctypes.CDLL(path)
    return "loaded"

@operation
def processes(how):
    import multiprocessing, subprocess
    from concurrent.futures import ProcessPoolExecutor
    if how == "process":
        multiprocessing.get_context("fork").Process(target=print).start()
    elif how == "pool":
        ProcessPoolExecutor(1).submit(print).result()
    else:
        subprocess.run(["true"])
"""


def test_numpy_multiplies(workshop: Workshop) -> None:
    environment = Path(__file__).parents[2] / ".plugin-env"
    if not (environment / "numpy").is_dir():
        pytest.fail("the plugin environment is not made: run `make env`")
    with SandboxHost.blocking(workshop.config(plugin_environment=environment)) as host:
        plugin = host.load(workshop.write(NUMPY))
        assert plugin.plan.limits == Limits(threads=1), "the default budget"
        assert plugin.call("multiply", 1_000) == 1_000.0
        # A library of linear algebra starts a thread for each CPU unless it is told otherwise.
        assert len(os.listdir(f"/proc/{plugin.receipt.pid}/task")) == 1
        assert plugin.usage().threads_peak == 1


@pytest.mark.needs("own-root")
def test_the_standard_library_works(load: Load) -> None:
    found = load(WORK, permissions={"threads": True}).call("work")
    assert found == [42, "thread", "2:00:00", "0.3", 8]


@pytest.mark.needs("own-root")
def test_a_foreign_shared_object_is_refused_with_the_reason(load: Load) -> None:
    import _ctypes

    data = Path(_ctypes.__file__).read_bytes()
    with pytest.raises(OperationError, match="failed to map segment") as caught:
        load(WORK).call("load_foreign", data)
    assert '"native_code": true' in str(caught.value)


@pytest.mark.parametrize("how", ["process", "pool", "subprocess"])
def test_more_processes_explain_themselves(load: Load, how: str) -> None:
    with pytest.raises(OperationError) as caught:
        load(WORK).call("processes", how)
    assert '"permissions": {"subprocess": true}' in str(caught.value)
