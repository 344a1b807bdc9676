"""Files that are not the plugin's: read, listed, changed, linked."""

from __future__ import annotations

import ctypes
import errno
import importlib
import os
import sys

from .registry import Target, attack, libc, syscall


def _read(path: str) -> None:
    with open(path, "rb") as file:
        assert file.read(1)


@attack("EACCES")
def read_etc_passwd(_: Target) -> None:
    _read("/etc/passwd")


@attack("EACCES")
def read_secret_of_host_user(target: Target) -> None:
    _read(target["outside"] + "/secret.txt")


@attack("EACCES")
def read_data_of_another_plugin(target: Target) -> None:
    _read(target["other_data"])


@attack("EACCES")
def read_code_of_another_plugin(target: Target) -> None:
    _read(target["other_code"])


@attack("EACCES")
def read_trust_store(target: Target) -> None:
    _read(target["trust_store"])


@attack("EACCES")
def read_journal(target: Target) -> None:
    _read(target["journal"])


@attack("EACCES")
def read_by_way_of_the_parent(target: Target) -> None:
    _read(target["own"] + "/" + os.path.relpath(target["trust_store"], target["own"]))


@attack("EACCES")
def read_proc_version(_: Target) -> None:
    _read("/proc/version")


@attack("EACCES")
def list_root(_: Target) -> None:
    assert os.listdir("/")


@attack("EACCES")
def list_parent_of_own_directory(target: Target) -> None:
    assert os.listdir(os.path.dirname(target["own"]))


@attack("EACCES")
def list_processes(_: Target) -> None:
    assert os.listdir("/proc")


@attack("EACCES")
def write_outside(target: Target) -> None:
    with open(target["outside"] + "/planted", "wb") as file:
        file.write(b"x")


@attack("EACCES")
def write_to_existing_file(target: Target) -> None:
    with open(target["outside"] + "/victim.txt", "ab") as file:
        file.write(b"x")


@attack("EACCES")
def write_to_own_code(target: Target) -> None:
    os.chdir(target["own_code"])
    with open("planted.py", "wb") as file:
        file.write(b"x")


@attack("EACCES")
def truncate_by_path(target: Target) -> None:
    os.truncate(target["outside"] + "/victim.txt", 0)


@attack("EACCES")
def remove_file(target: Target) -> None:
    os.unlink(target["outside"] + "/to_remove.txt")


@attack("EACCES")
def remove_directory(target: Target) -> None:
    os.rmdir(target["outside"] + "/to_remove")


@attack("EACCES")
def make_directory(target: Target) -> None:
    os.mkdir(target["outside"] + "/made")


@attack("EACCES")
def rename_out(target: Target) -> None:
    own = target["own"] + "/to_rename"
    with open(own, "wb"):
        pass
    os.rename(own, target["outside"] + "/renamed")


@attack("EACCES")
def rename_in(target: Target) -> None:
    os.rename(target["outside"] + "/to_take.txt", target["own"] + "/taken")


@attack("EPERM")
def change_mode(target: Target) -> None:
    os.chmod(target["outside"] + "/victim.txt", 0o666)


@attack("EPERM")
def change_owner(target: Target) -> None:
    os.chown(target["outside"] + "/victim.txt", os.getuid(), os.getgid())


@attack("EPERM")
def change_times(target: Target) -> None:
    os.utime(target["outside"] + "/victim.txt", (0, 0))


@attack("EPERM", optional=True)
def set_attribute(target: Target) -> None:
    path = ctypes.c_char_p(os.fsencode(target["outside"] + "/victim.txt"))
    syscall("setxattr", path, ctypes.c_char_p(b"user.planted"), ctypes.c_char_p(b"x"), 1, 0)


@attack("EPERM", optional=True)
def read_attribute(target: Target) -> None:
    path = ctypes.c_char_p(os.fsencode(target["outside"] + "/victim.txt"))
    try:
        syscall("getxattr", path, ctypes.c_char_p(b"user.none"), ctypes.c_void_p(), 0)
    except OSError as error:
        if error.errno != errno.ENODATA:  # an answer all the same
            raise


@attack("EPERM", optional=True)
def reserve_beyond_the_size_limit(target: Target) -> None:
    with open(target["own"] + "/reserved", "wb") as file:
        syscall("fallocate", file.fileno(), 1, 0, 1 << 20)


@attack("EACCES")
def symlink_out(target: Target) -> None:
    os.symlink("/etc/passwd", target["own"] + "/link")


@attack("EACCES")
def symlink_planted_outside(target: Target) -> None:
    os.symlink("/etc/passwd", target["outside"] + "/link")


@attack("EXDEV")
def hard_link_in(target: Target) -> None:
    os.link(target["outside"] + "/victim.txt", target["own"] + "/hard")


@attack("EACCES")
def hard_link_out(target: Target) -> None:
    own = target["own"] + "/to_link"
    with open(own, "wb"):
        pass
    os.link(own, target["outside"] + "/hard")


@attack("EPERM")
def make_fifo(target: Target) -> None:
    os.mkfifo(target["own"] + "/fifo")


@attack("EPERM", root=True)
def make_device(target: Target) -> None:
    os.mknod(target["own"] + "/device", 0o600 | 0o020000, os.makedev(1, 3))


@attack("EPERM")
def file_handle(target: Target) -> None:
    handle = ctypes.create_string_buffer(8 + 128)
    ctypes.c_uint.from_buffer(handle).value = 128
    path = ctypes.c_char_p(os.fsencode(target["outside"] + "/victim.txt"))
    syscall("name_to_handle_at", -100, path, handle, ctypes.byref(ctypes.c_int()), 0)


@attack("EACCES")
def map_a_file(target: Target) -> None:
    descriptor = os.open(target["outside"] + "/secret.txt", os.O_RDONLY)
    try:
        assert libc.mmap(None, ctypes.c_size_t(4096), 1, 2, descriptor, ctypes.c_long(0))
    finally:
        os.close(descriptor)


@attack("ModuleNotFoundError")
def import_from_host_site_packages(target: Target) -> None:
    sys.path.append(target["site_packages"])
    importlib.import_module("cryptography")


@attack("EACCES")
def read_host_site_packages(target: Target) -> None:
    _read(target["site_packages"] + "/cryptography/__init__.py")
