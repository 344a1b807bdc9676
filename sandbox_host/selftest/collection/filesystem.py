"""Files that are not the plugin's: read, listed, looked at, changed, linked."""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import sys

from .native import libc, syscall, text
from .registry import (
    UNREACHABLE,
    UNWRITABLE,
    Boundary,
    NothingThereError,
    Target,
    against,
    can_add_to,
    host,
    read_some,
)

attack = against(Boundary.FILESYSTEM)

_OWN_ROOT = ("own-root",)


# -- read -----------------------------------------------------------------------------------------


@attack(*UNREACHABLE)
def read_etc_passwd(_: Target) -> None:
    read_some("/etc/passwd")


@attack(*UNREACHABLE)
def read_secret_of_host_user(target: Target) -> None:
    read_some(target["outside"] + "/secret.txt")


@attack(*UNREACHABLE)
def read_data_of_another_plugin(target: Target) -> None:
    read_some(target["other_data"])


@attack(*UNREACHABLE)
def read_code_of_another_plugin(target: Target) -> None:
    read_some(target["other_code"])


@attack(*UNREACHABLE)
def read_trust_store(target: Target) -> None:
    read_some(target["trust_store"])


@attack(*UNREACHABLE)
def read_journal(target: Target) -> None:
    read_some(target["journal"])


@attack(*UNREACHABLE)
def read_by_way_of_the_parent(target: Target) -> None:
    read_some(target["own"] + "/" + os.path.relpath(target["trust_store"], target["own"]))


@attack(*UNREACHABLE)
def read_by_a_directory_descriptor(target: Target) -> None:
    descriptor = os.open("/", os.O_PATH)
    try:
        name = (target["outside"] + "/secret.txt").lstrip("/")
        os.close(os.open(name, os.O_RDONLY, dir_fd=descriptor))
    finally:
        os.close(descriptor)


@attack(*UNREACHABLE)
def read_through_a_path_descriptor(target: Target) -> None:
    # O_PATH opens without reading, and its link in /proc leads to the file again.
    descriptor = os.open(target["outside"] + "/secret.txt", os.O_PATH)
    try:
        read_some(f"/proc/self/fd/{descriptor}")
    finally:
        os.close(descriptor)


@attack(*UNREACHABLE)
def read_through_own_root_link(target: Target) -> None:
    read_some("/proc/self/root" + target["outside"] + "/secret.txt")


@attack(*UNREACHABLE)
def read_through_root_of_host(target: Target) -> None:
    # The root of whoever is outside ours.
    read_some(f"/proc/{host(target)}/root" + target["outside"] + "/secret.txt")


@attack(*UNREACHABLE)
def map_a_file(target: Target) -> None:
    descriptor = os.open(target["outside"] + "/secret.txt", os.O_RDONLY)
    try:
        assert libc.mmap(None, ctypes.c_size_t(4096), 1, 2, descriptor, ctypes.c_long(0))
    finally:
        os.close(descriptor)


@attack("ModuleNotFoundError")
def import_from_host_site_packages(target: Target) -> None:
    sys.path.append(target["site_packages"])
    try:
        importlib.import_module("packaging")
    finally:
        sys.path.remove(target["site_packages"])


@attack(*UNREACHABLE)
def read_host_site_packages(target: Target) -> None:
    read_some(target["site_packages"] + "/packaging/version.py")


@attack(*UNREACHABLE, "NothingThereError", optional=True)
def read_block_device(_: Target) -> None:
    with os.scandir("/dev") as entries:
        names = sorted(e.name for e in entries if e.name.startswith(("vda", "sda", "nvme0n1")))
    if not names:
        raise NothingThereError("no disk")
    read_some(f"/dev/{names[0]}")


# -- list -----------------------------------------------------------------------------------------


@attack("EACCES", "NothingThereError")
def list_root(target: Target) -> None:
    if not set(target["root_entries"]) <= set(os.listdir("/")):
        raise NothingThereError("another root")


@attack("EACCES", "NothingThereError")
def list_parent_of_own_directory(target: Target) -> None:
    if not set(target["neighbours"]) & set(os.listdir(os.path.dirname(target["own"]))):
        raise NothingThereError("no neighbour")


@attack(*UNREACHABLE)
def list_home_of_host_user(target: Target) -> None:
    assert os.listdir(target["outside"] + "/home")


@attack(*UNREACHABLE)
def list_temporary_files(_: Target) -> None:
    os.listdir("/var/tmp")


# -- look at, without opening ---------------------------------------------------------------------


@attack(*UNREACHABLE, needs=_OWN_ROOT)
def learn_size_and_times_of_a_file(target: Target) -> None:
    os.stat(target["outside"] + "/secret.txt")


@attack(*UNREACHABLE, needs=_OWN_ROOT)
def learn_whether_a_file_exists(target: Target) -> None:
    os.stat(target["trust_store"])


@attack("NothingThereError", needs=_OWN_ROOT)
def learn_who_may_read_a_file(target: Target) -> None:
    if not os.access(target["outside"] + "/secret.txt", os.R_OK):
        raise NothingThereError("no access")


@attack(*UNREACHABLE, needs=_OWN_ROOT)
def learn_where_a_link_leads(target: Target) -> None:
    os.readlink(target["outside"] + "/link.txt")


@attack(*UNREACHABLE, needs=_OWN_ROOT)
def enter_a_directory(target: Target) -> None:
    before = os.open(".", os.O_PATH)
    try:
        os.chdir(target["outside"])
        os.fchdir(before)
    finally:
        os.close(before)


@attack(*UNREACHABLE, needs=_OWN_ROOT)
def hold_a_file_without_reading(target: Target) -> None:
    os.close(os.open(target["outside"] + "/secret.txt", os.O_PATH))


@attack(*UNREACHABLE, needs=_OWN_ROOT)
def learn_room_on_a_disk(target: Target) -> None:
    os.statvfs(target["outside"])


# -- change ---------------------------------------------------------------------------------------


@attack(*UNWRITABLE)
def write_outside(target: Target) -> None:
    with open(target["outside"] + "/planted", "wb") as file:
        file.write(b"x")


@attack(*UNWRITABLE)
def write_to_existing_file(target: Target) -> None:
    with open(target["outside"] + "/victim.txt", "ab") as file:
        file.write(b"x")


@attack(*UNWRITABLE)
def write_to_temporary_files(_: Target) -> None:
    can_add_to("/var/tmp")


@attack(*UNWRITABLE)
def truncate_by_path(target: Target) -> None:
    os.truncate(target["outside"] + "/victim.txt", 0)


@attack(*UNWRITABLE)
def remove_file(target: Target) -> None:
    os.unlink(target["outside"] + "/to_remove.txt")


@attack(*UNWRITABLE)
def remove_directory(target: Target) -> None:
    os.rmdir(target["outside"] + "/to_remove")


@attack(*UNWRITABLE)
def make_directory(target: Target) -> None:
    os.mkdir(target["outside"] + "/made")


@attack(*UNWRITABLE, "EXDEV")
def rename_out(target: Target) -> None:
    own = target["own"] + "/to_rename"
    with open(own, "wb"):
        pass
    os.rename(own, target["outside"] + "/renamed")


@attack(*UNWRITABLE, "EXDEV")
def rename_in(target: Target) -> None:
    os.rename(target["outside"] + "/to_take.txt", target["own"] + "/taken")


@attack("EPERM", *UNWRITABLE)
def change_mode(target: Target) -> None:
    os.chmod(target["outside"] + "/victim.txt", 0o666)


@attack("EPERM", *UNWRITABLE)
def change_owner(target: Target) -> None:
    os.chown(target["outside"] + "/victim.txt", os.getuid(), os.getgid())


@attack("EPERM", *UNWRITABLE)
def change_times(target: Target) -> None:
    os.utime(target["outside"] + "/victim.txt", (0, 0))


@attack("EPERM", *UNWRITABLE, optional=True)
def set_attribute(target: Target) -> None:
    path = text(target["outside"] + "/victim.txt")
    syscall("setxattr", path, text("user.planted"), text("x"), 1, 0)


@attack("ENOTSUP", *UNREACHABLE, optional=True)
def read_attribute(target: Target) -> None:
    path = text(target["outside"] + "/victim.txt")
    try:
        syscall("getxattr", path, text("user.none"), ctypes.c_void_p(), 0)
    except OSError as error:
        if error.errno != errno.ENODATA:  # an answer all the same
            raise


# -- links and special files ----------------------------------------------------------------------


@attack(*UNREACHABLE)
def read_through_a_link_of_ones_own(target: Target) -> None:
    link = target["own"] + "/link"
    os.symlink(target["outside"] + "/secret.txt", link)
    try:
        read_some(link)
    finally:
        os.unlink(link)


@attack(*UNWRITABLE)
def symlink_planted_outside(target: Target) -> None:
    os.symlink("/etc/passwd", target["outside"] + "/link")


@attack("EXDEV", *UNWRITABLE)
def hard_link_in(target: Target) -> None:
    os.link(target["outside"] + "/victim.txt", target["own"] + "/hard")


@attack(*UNWRITABLE, "EXDEV")
def hard_link_out(target: Target) -> None:
    own = target["own"] + "/to_link"
    with open(own, "wb"):
        pass
    os.link(own, target["outside"] + "/hard")


@attack("EPERM", "EACCES")
def make_fifo(target: Target) -> None:
    os.mkfifo(target["own"] + "/fifo")


@attack("EPERM", "EACCES", root=True)
def make_device(target: Target) -> None:
    os.mknod(target["own"] + "/device", 0o600 | 0o020000, os.makedev(1, 3))


@attack("EPERM", *UNREACHABLE)
def file_handle(target: Target) -> None:
    handle = ctypes.create_string_buffer(8 + 128)
    ctypes.c_uint.from_buffer(handle).value = 128
    path = text(target["outside"] + "/victim.txt")
    syscall("name_to_handle_at", -100, path, handle, ctypes.byref(ctypes.c_int()), 0)
