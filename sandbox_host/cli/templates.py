"""What `new` writes: text only. Everything here is a plugin that works as it stands."""

from __future__ import annotations

import json
import string
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

_VERSION: Final = "0.1.0"

_INIT: Final = '''\
"""$description"""
'''

_HOOKS: Final = '''

def init_plugin() -> bool:
    """Get ready; False refuses to start."""
    context().log.info("%s is ready", context().name)
    return True


def get_metadata() -> dict[str, Any]:
    """Say who this is, in the words of plugin.json."""
    return {
        "name": "$name",
        "version": "$version",
        "description": "$description",
        "capabilities": $capabilities,
    }


def health_check() -> dict[str, Any]:
    """Say how it is: "healthy", "warning" or "error"."""
    return {"status": "healthy", "message": "ready"}


def cleanup() -> bool:
    """Leave nothing behind; True when all is cleaned up."""
    return True
'''

_FUNCTIONS: Final = '''\
"""Plain functions, marked as operations."""

from __future__ import annotations

from typing import Any

from plugin_sdk import context, operation


@operation
def count(text: str) -> dict[str, int]:
    """Return how often each word occurs in a text."""
    words: dict[str, int] = {}
    for word in text.lower().split():
        words[word] = words.get(word, 0) + 1
    return words
'''

_MODEL: Final = '''\
"""A model: it predicts the mean of what it was trained on."""

from __future__ import annotations

from typing import Any

from plugin_sdk import Model, context


class MeanModel(Model):
    """Remembers one number. Put a real model here."""

    def __init__(self) -> None:
        self.mean: float | None = None

    def train(self, targets: list[float]) -> dict[str, Any]:
        """Learn, and return what the caller should know."""
        self.mean = sum(targets) / len(targets)
        return {"rows": len(targets), "mean": self.mean}

    def predict(self, rows: list[Any]) -> list[float]:
        """Return one number for each row."""
        return [self._trained()] * len(rows)

    def evaluate(self, targets: list[float]) -> float:
        """Return the mean absolute error on other data."""
        mean = self._trained()
        return sum(abs(target - mean) for target in targets) / len(targets)

    def _trained(self) -> float:
        if self.mean is None:
            raise ValueError("the model is not trained: call train() first")
        return self.mean


model = MeanModel()
'''

_DATA_SOURCE: Final = '''\
"""A data source: rows in a file of the plugin's own data directory, which outlives the process."""

from __future__ import annotations

import json
import os
from typing import Any

from plugin_sdk import DataSource, context


class RowSource(DataSource):
    """One JSON document a line. Put a database here."""

    def connect(self) -> dict[str, Any]:
        """Tell how many rows there are."""
        return {"rows": len(self.read())}

    def disconnect(self) -> bool:
        """Nothing is kept open."""
        return True

    def read(self, limit: int | None = None) -> list[Any]:
        """Return the first `limit` rows, or all."""
        if not os.path.exists(self._path()):
            return []
        with open(self._path(), encoding="utf-8") as file:
            return [json.loads(line) for line in file][:limit]

    def write(self, rows: list[Any]) -> int:
        """Append rows, and return how many."""
        with open(self._path(), "a", encoding="utf-8") as file:
            file.writelines(json.dumps(row) + "\\n" for row in rows)
        return len(rows)

    def _path(self) -> str:
        return os.path.join(context().data_dir, "rows.jsonl")


source = RowSource()
'''

_PIPELINE: Final = '''\
"""A pipeline: rows of numbers through named stages, in order."""

from __future__ import annotations

from typing import Any

from plugin_sdk import Pipeline, context

Rows = list[list[float]]


def drop_empty(rows: Rows) -> Rows:
    """Leave out rows without a number."""
    return [row for row in rows if row]


def scale(rows: Rows) -> Rows:
    """Divide each row by its largest number."""
    return [[value / (max(map(abs, row)) or 1.0) for value in row] for row in rows]


KNOWN = {"drop_empty": drop_empty, "scale": scale}


class RowPipeline(Pipeline):
    """Runs the stages it was given."""

    def __init__(self) -> None:
        self.names = ["drop_empty"]

    def stages(self) -> list[str]:
        """Return the names of the stages, in order."""
        return list(self.names)

    def add_stage(self, name: str) -> list[str]:
        """Add one of the known stages at the end."""
        if name not in KNOWN:
            raise ValueError(f"no stage {name!r}; there are: {', '.join(KNOWN)}")
        self.names.append(name)
        return self.stages()

    def process(self, rows: Rows) -> Rows:
        """Return the rows after all stages."""
        for name in self.names:
            rows = KNOWN[name](rows)
        return rows


pipeline = RowPipeline()
'''

_README: Final = """\
# $name

$description

    sandbox-host check $identity        # try it in the sandbox, unsigned
    sandbox-host sign $identity         # with your development key (sandbox-host keygen --dev)
    sandbox-host call $identity $example

A test of it, in the real sandbox (pytest; the fixture comes with sandbox-host):

    def test_starts(sandbox):
        plugin = sandbox("$identity")
        assert plugin.call("health_check")["status"] == "healthy"
"""


@dataclass(frozen=True, slots=True)
class _Kind:
    """One kind of plugin.

    Attributes:
        main: main.py without its hooks.
        description: for plugin.json.
        capabilities: for plugin.json.
        example: operation and arguments, as `sandbox-host call` takes them.
    """

    main: str
    description: str
    capabilities: tuple[str, ...]
    example: str


_KINDS: Final[Mapping[str, _Kind]] = MappingProxyType(
    {
        "model": _Kind(_MODEL, "Predicts a number.", ("ai_model",), "train '[1, 2, 3]'"),
        "data-source": _Kind(
            _DATA_SOURCE, "Keeps rows and returns them.", ("data_source",), """write '[{"a": 1}]'"""
        ),
        "pipeline": _Kind(
            _PIPELINE, "Transforms rows of numbers.", ("pipeline",), "process '[[1, 2], []]'"
        ),
        "functions": _Kind(_FUNCTIONS, "Counts words.", (), """count '"one two two"'"""),
    }
)

KINDS: Final = tuple(_KINDS)
"""Names of the kinds of plugin that can be written."""


def plugin_files(kind: str, name: str, identity: str, author: str) -> dict[str, bytes]:
    """Return the files of a new plugin, by name.

    Args:
        kind: one of `KINDS`.
        name: an identifier; whoever writes the files checks that it is one.
        identity: its snake-case form.
        author: any text.
    """
    made = _KINDS[kind]
    words = {
        "name": name,
        "identity": identity,
        "version": _VERSION,
        "description": made.description,
        "capabilities": json.dumps(list(made.capabilities)),
        "example": made.example,
    }
    manifest: dict[str, Any] = {
        "name": name,
        "version": _VERSION,
        "description": made.description,
        "author": author,
        "capabilities": list(made.capabilities),
        "dependencies": [],
        "permissions": {},
        "config": {},
        "events": [],
        "limits": {"memory": "128 MiB", "cpu_time": "10 s", "wall_time": "10 s"},
        "plugin_api": "1.0",
    }
    texts = {
        "plugin.json": json.dumps(manifest, indent=2) + "\n",
        "__init__.py": _filled(_INIT, words),
        "main.py": _filled(made.main + _HOOKS, words),
        "README.md": _filled(_README, words),
    }
    return {path: text.encode() for path, text in texts.items()}


def _filled(template: str, words: Mapping[str, str]) -> str:
    return string.Template(template).substitute(words)
