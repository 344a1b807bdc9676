"""Parent, namespaces, user id, descriptors, limits: each in a process of its own."""

from __future__ import annotations

import os

import pytest

from tests.support.alone import alone

own_user = pytest.mark.usefixtures("_own_user")
root_only = pytest.mark.skipif(os.geteuid() != 0, reason="only root becomes another user")


# -- the C library -------------------------------------------------------------------------------


def test_errors_have_number_and_name() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.libc import check, libc, prctl
        import ctypes
        assert check(7, "what") == 7
        ctypes.set_errno(errno.ENOTTY)
        try:
            check(-1, "what")
        except OSError as error:
            result = [error.errno, str(error)]
        assert met(prctl, 99_999) == "EINVAL"
        """
    )
    assert found[0] == 25
    assert "what: " in found[1]


# -- dying with the parent -----------------------------------------------------------------------


def test_child_of_another_parent_leaves() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.parent import die_with
        child = os.fork()
        if child == 0:
            die_with(1 if os.getppid() != 1 else 2)
            os._exit(0)
        result = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        """
    )
    assert found == 72


def test_parents_death_is_told_by_sigkill() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.parent import die_with, parent_death_signal
        before = parent_death_signal()
        die_with(os.getppid())
        result = [before, parent_death_signal()]
        """
    )
    assert found == [0, 9]


def test_child_ends_with_its_parent() -> None:
    found = alone(
        """
        import select
        from plugin_sdk.lockdown.parent import die_with
        read_end, write_end = os.pipe()
        parent = os.fork()
        if parent == 0:
            me, child = os.getpid(), os.fork()
            if child == 0:
                die_with(me)
                os.write(write_end, b"ready")
                signal.pause()
            signal.pause()
        os.close(write_end)
        assert os.read(read_end, 5) == b"ready"
        os.kill(parent, signal.SIGKILL)
        os.waitpid(parent, 0)
        # The child holds the other end of the pipe until it ends.
        result = os.read(read_end, 1) == b""
        """
    )
    assert found is True


@root_only
def test_change_of_credentials_clears_it() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.parent import die_with, parent_death_signal
        from plugin_sdk.lockdown.identity import become
        die_with(os.getppid())
        become(61_184)
        cleared = parent_death_signal()
        die_with(os.getppid())
        result = [cleared, parent_death_signal()]
        """
    )
    assert found == [0, 9]


# -- namespaces ----------------------------------------------------------------------------------


def test_no_namespace_is_asked_for() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.namespaces import unshare
        link = "/proc/self/ns/{}".format
        before = {name: os.readlink(link(name)) for name in os.listdir(link(""))}
        unshare(0)
        result = all(os.readlink(link(name)) == target for name, target in before.items())
        """
    )
    assert found is True


@own_user
@pytest.mark.parametrize("name", ["NET", "IPC", "UTS", "CGROUP", "NS"])
def test_namespace_of_ones_own(name: str) -> None:
    found = alone(
        """
        from plugin_sdk.lockdown import namespaces
        name = sys.argv[1]
        own_user()
        link = "/proc/self/ns/" + {"NS": "mnt"}.get(name, name.lower())
        before = os.readlink(link)
        namespaces.unshare(getattr(namespaces, f"NEW{name}"))
        result = before != os.readlink(link)
        """,
        name,
    )
    assert found is True


@own_user
def test_host_name_changes_here_only() -> None:
    before = os.uname().nodename
    found = alone(
        """
        from plugin_sdk.lockdown.namespaces import NEWUTS, set_hostname, unshare
        own_user()
        refused = met(set_hostname, "mine")
        unshare(NEWUTS)
        set_hostname("mine")
        result = [refused, os.uname().nodename]
        """
    )
    assert found == ["EPERM", "mine"]
    assert os.uname().nodename == before


@own_user
def test_nested_user_namespace() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.namespaces import nest
        own_user()
        outer = os.readlink("/proc/self/ns/user")
        process = os.open("/proc/self", os.O_RDONLY | os.O_DIRECTORY)
        nest(process)
        result = [
            outer != os.readlink("/proc/self/ns/user"),
            os.getresuid(), os.getresgid(),
            open("/proc/self/uid_map").read().split(),
            open("/proc/self/setgroups").read().strip(),
        ]
        """
    )
    assert found == [True, [1, 1, 1], [1, 1, 1], ["1", "0", "1"], "deny"]


@own_user
def test_children_are_born_in_a_new_pid_namespace_until_one_returns() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.namespaces import NEWPID, join, unshare

        def number():
            read_end, write_end = os.pipe()
            child = os.fork()
            if child == 0:
                os.write(write_end, str(os.getpid()).encode())
                os._exit(0)
            os.waitpid(child, 0)
            return int(os.read(read_end, 20)) == child

        own_user()
        # To come back into a namespace takes power over its owner: one of our own, then.
        unshare(NEWPID)
        child = os.fork()
        if child:
            os._exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
        before = number()
        namespace = os.open("/proc/self/ns/pid", os.O_RDONLY)
        unshare(NEWPID)
        inside = number()
        join(namespace, NEWPID)
        result = [before, inside, number()]
        """
    )
    assert found == [True, False, True]


@own_user
def test_sibling_has_the_same_parent() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.namespaces import NEWPID, fork_sibling
        read_end, write_end = os.pipe()
        os.set_inheritable(write_end, True)
        middle = os.fork()
        if middle == 0:
            own_user()
            child = fork_sibling(NEWPID)
            if child == 0:
                code = f"import os; os.write({write_end}, str(os.getpid()).encode())"
                os.execv(sys.executable, [sys.executable, "-I", "-S", "-c", code])
            os._exit(0)
        os.waitpid(middle, 0)
        sibling, how = os.wait()
        result = [sibling != middle, how, os.read(read_end, 20).decode()]
        """
    )
    assert found == [True, 0, "1"]


# -- user id, descriptors, limits ---------------------------------------------------------------


@root_only
def test_another_user_for_good() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.identity import become
        os.setgroups([1, 2, 3])
        become(61_184)
        result = [
            os.getresuid(), os.getresgid(), os.getgroups(),
            met(os.setuid, 0), met(os.setgid, 0), *status("CapPrm", "CapEff"),
        ]
        """
    )
    own = [61_184] * 3
    assert found == [own, own, [], "EPERM", "EPERM", "0" * 16, "0" * 16]


@own_user
def test_user_that_is_not_mapped() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.identity import become
        own_user()
        result = met(become, 5)
        """
    )
    assert found in {"EINVAL", "EPERM"}  # setgroups is denied in such a namespace


def test_every_other_descriptor_is_closed() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.descriptors import close_others, open_descriptors
        for wanted in (3, 4, 7, 9, 40, 200):
            os.dup2(1, wanted)
        before = open_descriptors()
        close_others([9, 4, 200])
        result = [before, open_descriptors()]
        """
    )
    assert {0, 1, 2, 3, 4, 7, 9, 40, 200} <= set(found[0])
    assert found[1] == [0, 1, 2, 4, 9, 200]


def test_keeping_none() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.descriptors import close_others, open_descriptors
        os.dup2(1, 50)
        close_others([])
        result = open_descriptors()
        """
    )
    assert found == [0, 1, 2]


def test_limits_are_set_hard_and_soft() -> None:
    found = alone(
        """
        from plugin_sdk.lockdown.limits import set_rlimits
        set_rlimits([[resource.RLIMIT_CORE, 0], [resource.RLIMIT_NOFILE, 20]])
        result = [
            resource.getrlimit(resource.RLIMIT_CORE), resource.getrlimit(resource.RLIMIT_NOFILE)
        ]
        """
    )
    assert found == [[0, 0], [20, 20]]
