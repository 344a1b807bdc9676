"""Plans and places without a host, for tests of backends."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from sandbox_host import HostConfig
from sandbox_host.admission.plan import SandboxPlan, admit
from sandbox_host.admission.policy import Policy
from sandbox_host.backends.base import Places
from sandbox_host.bundle.stage import stage
from sandbox_host.model import Guarantee, Layer, Permissions
from sandbox_host.runtime.launch import base_python
from sandbox_host.runtime.workspace import Workspace
from tests.support.bundles import make_key, signed_plugin, verified_bundle

MAIN = """
from plugin_sdk import operation

@operation
def echo(value):
    return value
"""


@contextlib.contextmanager
def plan_and_places(
    root: Path,
    *,
    name: str = "sample",
    layers: Iterable[Layer] = tuple(Layer),
    grants: Permissions | None = None,
    main: str = MAIN,
    workspace: Workspace | None = None,
    **manifest: Any,
) -> Iterator[tuple[SandboxPlan, Places]]:
    """Yield a plan for a small plugin, and the places a host would give it.

    Args:
        root: a directory of the test's own; the host's directories are made in it.
        name: the plugin's name.
        layers: what the machine offers; the guarantees that it does not keep are accepted as
            missing.
        grants: what the operator grants it.
        main: its ``main.py``.
        workspace: of the host that it is for, which stays open; else one is made for it alone.
        manifest: keys of plugin.json.
    """
    key = make_key()
    bundle = verified_bundle(signed_plugin(root / name, key, {"main.py": main}, **manifest), key)
    offered = frozenset(layers)
    config = HostConfig(
        trust_store=root / "none.toml",
        accept_missing=frozenset(Guarantee),
        grants={"*": grants} if grants else {},
    )
    plan = admit(bundle, Policy.from_config(config), offered)
    with contextlib.ExitStack() as made:
        if workspace is None:
            workspace = Workspace(root / "state", config.plugin_uids)
            made.callback(workspace.close)
        yield plan, _places(plan, workspace, stage(bundle, workspace.bundles))


def _places(plan: SandboxPlan, workspace: Workspace, package_dir: Path) -> Places:
    return Places(
        python=base_python(),
        sdk_dir=workspace.sdk_dir,
        package_dir=package_dir,
        data_dir=workspace.data_dir(plan.identity),
        scratch_dir=workspace.scratch_dir(plan.identity),
        canary=workspace.canary,
    )


def load_order(plan: SandboxPlan, places: Places) -> dict[str, Any]:
    """Return the payload of `Load` for a plugin."""
    return {
        "identity": plan.identity,
        "package_dir": str(places.package_dir),
        "sys_path": [],
        "config": {},
        "data_dir": str(places.data_dir),
        "scratch_dir": str(places.scratch_dir),
        "events": [],
        "publish": [],
    }
