from __future__ import annotations

from pathlib import Path

import pytest

from plugin_sdk.child.interface import LoadError
from plugin_sdk.child.loader import LoadedPlugin, load
from plugin_sdk.events import Event
from tests.support.child_session import HOOKS, order_for, write_package

SDK = "from plugin_sdk import DataSource, Model, Pipeline, on, operation\n"


def loaded(
    tmp_path: Path,
    main: str,
    package: str = "",
    *,
    events: tuple[str, ...] = (),
    hooks: str = HOOKS,
) -> LoadedPlugin:
    files = {"__init__.py": package, "main.py": SDK + hooks + main}
    return load(order_for(write_package(tmp_path, files), events=list(events)), lambda *_: None)


def refused(
    tmp_path: Path,
    main: str,
    package: str = "",
    *,
    events: tuple[str, ...] = (),
    hooks: str = HOOKS,
) -> str:
    with pytest.raises(LoadError) as caught:
        loaded(tmp_path, main, package, events=events, hooks=hooks)
    assert caught.value.code == "interface"
    assert caught.value.cause is None
    return str(caught.value)


# -- hooks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["init_plugin", "get_metadata"])
def test_a_required_hook_that_is_missing_says_what_to_write(tmp_path: Path, name: str) -> None:
    told = refused(tmp_path, f"del {name}")
    assert told.startswith(f"{name}() is missing. Define `def {name}() -> ")
    assert "__init__.py or main.py" in told


def test_hooks_may_be_spread_over_both_modules(tmp_path: Path) -> None:
    plugin = loaded(
        tmp_path,
        "def cleanup(): return True",
        "def health_check(): return {'status': 'healthy'}\nfrom .main import get_metadata",
    )
    assert set(plugin.hooks) == {"init_plugin", "get_metadata", "cleanup", "health_check"}
    assert plugin.interface.operations["health_check"]() == {"status": "healthy"}
    assert plugin.ready_payload()["hooks"] == {"cleanup": True, "health_check": True}


def test_a_hook_that_is_defined_twice_is_an_error(tmp_path: Path) -> None:
    told = refused(tmp_path, "", "def get_metadata(): return {}")
    assert (
        told
        == "get_metadata is defined differently in __init__.py and main.py. Keep one of the two."
    )


def test_a_hook_is_a_function(tmp_path: Path) -> None:
    assert "cleanup in main.py is a int, not a function" in refused(tmp_path, "cleanup = 3")


@pytest.mark.parametrize("name", ["init_plugin", "cleanup"])
def test_hooks_of_the_host_are_no_operations(tmp_path: Path, name: str) -> None:
    told = refused(tmp_path, f"@operation\ndef {name}(): return True")
    assert f"{name}() is called by the host itself" in told


# -- operations -------------------------------------------------------------------------------


def test_marked_functions_of_both_modules_are_operations(tmp_path: Path) -> None:
    plugin = loaded(
        tmp_path,
        """
import functools

@operation
def first(): return 1

@operation("second")
def _two(): return 2

@operation
@functools.lru_cache
def cached(): return 3

def plain(): return 4
""",
        "from .main import first\nfrom plugin_sdk import operation\n"
        "@operation\ndef zeroth(): return 0",
    )
    operations = plugin.interface.operations
    assert list(operations) == ["first", "zeroth", "second", "cached", "get_metadata"]
    assert [operations[name]() for name in list(operations)[:4]] == [1, 0, 2, 3]


def test_two_operations_of_one_name_are_an_error(tmp_path: Path) -> None:
    told = refused(tmp_path, "@operation\ndef a(): ...\n@operation('a')\ndef b(): ...")
    assert told.startswith('two operations are called "a": sample.main.a and sample.main.b.')


def test_values_that_have_every_attribute_are_not_operations(tmp_path: Path) -> None:
    plugin = loaded(
        tmp_path,
        """
from unittest.mock import MagicMock

class Proxy:
    def __getattribute__(self, name): raise RuntimeError("working outside of a request")
    def __call__(self): ...

mock, proxy = MagicMock(), Proxy()
""",
    )
    assert list(plugin.interface.operations) == ["get_metadata"]


@pytest.mark.parametrize(
    "source",
    [
        "async def get_metadata(): return {}",
        "async def cleanup(): return True",
    ],
)
def test_async_hooks_are_refused_and_says_what_works(tmp_path: Path, source: str) -> None:
    told = refused(tmp_path, source, events=("data_processed",))
    assert "is `async def`" in told
    assert "asyncio.run() inside it works" in told


@pytest.mark.parametrize(
    "source",
    [
        "@operation\nasync def predict(): ...",
        "@operation\nasync def predict(): yield 1",
        "class M(Model):\n    async def predict(self): ...\nmodel = M()",
    ],
)
def test_async_operations_are_offered(tmp_path: Path, source: str) -> None:
    assert "predict" in loaded(tmp_path, source).interface.operations


def test_marks_that_nobody_sees_are_told(tmp_path: Path) -> None:
    files = {
        "__init__.py": "",
        "main.py": HOOKS + "from . import other\nfrom .other import seen",
        "other.py": SDK + "@operation\ndef seen(): ...\n@operation\ndef unseen(): ...",
    }
    plugin = load(order_for(write_package(tmp_path, files)), lambda *_: None)
    assert list(plugin.interface.operations) == ["seen", "get_metadata"]
    assert plugin.interface.warnings == [
        "sample.other.unseen is marked but not offered: import it in main.py."
    ]


# -- kinds ------------------------------------------------------------------------------------

MODEL = """
class Weather(Model):
    secret = "no method"

    def predict(self, rows): return ["sun" for _ in rows]

    def helper(self): ...

    @operation
    def explain(self, row): return f"because of {row}"

    @operation
    @staticmethod
    def version(): return 2

    @on("data_processed")
    def learn(self, event): self.seen = event.data
"""


def test_the_overridden_methods_of_the_one_object_are_operations(tmp_path: Path) -> None:
    plugin = loaded(tmp_path, MODEL + "model = same = Weather()", events=("data_processed",))
    found = plugin.interface
    assert found.kind == "Model"
    assert found.operation_kinds == {
        "predict": "Model",
        "explain": "operation",
        "version": "operation",
        "get_metadata": "hook",
    }
    assert found.operations["predict"]([1, 2]) == ["sun", "sun"]
    assert found.operations["version"]() == 2
    (handler,) = found.handlers["data_processed"]
    handler(Event("data_processed", 5))
    assert handler.__self__.seen == 5  # type: ignore[attr-defined]


def test_the_object_may_be_made_by_init_plugin(tmp_path: Path) -> None:
    hooks = """
model = None

def init_plugin():
    global model
    model = Weather()
    return True

def get_metadata(): return {}
"""
    plugin = loaded(tmp_path, MODEL, hooks=hooks, events=("data_processed",))
    assert plugin.interface.kind == "Model"


@pytest.mark.parametrize(
    ("base", "line"),
    [
        ("Model", "`model = Mine()`"),
        ("DataSource", "`source = Mine()`"),
        ("Pipeline", "`pipeline = Mine()`"),
    ],
)
def test_a_class_without_an_object_says_which_line_to_add(
    tmp_path: Path, base: str, line: str
) -> None:
    told = refused(tmp_path, f"class Mine({base}): ...")
    assert "Mine is never used" in told
    assert f"Add {line} at the end of sample.main." in told


def test_two_objects_of_a_kind_are_an_error(tmp_path: Path) -> None:
    told = refused(
        tmp_path, "class A(Model): ...\nclass B(DataSource): ...\na, b = A(), B()", events=()
    )
    assert told.startswith("there are 2 objects of a kind (A, B)")


def test_an_object_of_two_kinds_is_an_error(tmp_path: Path) -> None:
    told = refused(tmp_path, "class A(Model, DataSource): ...\na = A()")
    assert "A is Model and DataSource at once" in told


def test_stages_may_be_a_list(tmp_path: Path) -> None:
    plugin = loaded(
        tmp_path,
        """
def clean(rows): return rows

class Features(Pipeline):
    def __init__(self): self.stages = [clean, "scale", 3]
    def add_stage(self, name): self.stages.append(name)

pipeline = Features()
""",
    )
    operations = plugin.interface.operations
    assert list(operations) == ["stages", "add_stage", "get_metadata"]
    operations["add_stage"]("encode")
    assert operations["stages"]() == ["clean", "scale", "int", "encode"]


def test_a_method_of_a_kind_is_a_method(tmp_path: Path) -> None:
    told = refused(tmp_path, "class A(Model):\n    predict = 3\na = A()")
    assert told == "A.predict is a int, not a method."


# -- handlers ---------------------------------------------------------------------------------


def test_a_handler_of_an_event_that_is_not_listed_names_the_key(tmp_path: Path) -> None:
    told = refused(tmp_path, "@on('data_processed')\ndef learn(event): ...")
    assert told.startswith(
        'sample.main.learn handles the event "data_processed", which plugin.json'
    )
    assert '"events": ["data_processed"]' in told


def test_several_handlers_of_one_event_run_in_the_order_of_the_file(tmp_path: Path) -> None:
    plugin = loaded(
        tmp_path,
        "@on('a', 'b')\ndef first(event): ...\n@on('a')\ndef second(event): ...\nalias = first",
        events=("a", "b"),
    )
    handlers = {
        event: [handler.__name__ for handler in handlers]
        for event, handlers in plugin.interface.handlers.items()
    }
    assert handlers == {"a": ["first", "second"], "b": ["first"]}
    assert plugin.interface.warnings == []


def test_a_listed_event_without_a_handler_is_a_warning(tmp_path: Path) -> None:
    plugin = loaded(tmp_path, "", events=("data_processed",))
    assert plugin.interface.handlers == {}
    (warning,) = plugin.interface.warnings
    assert '"data_processed"' in warning
    assert '@on("data_processed")' in warning
