"""A plugin that starts processes, and the host of one for tests that kill it.

``python -m tests.support.plugin_processes TRUST_STORE STATE_DIR BUNDLE`` loads it, has it leave a
daemon behind, prints the plugin's process, and stays. Without arguments it makes all that itself
and prints why its plugin was refused.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

from sandbox_host import HostConfig, SandboxHost
from sandbox_host.errors import SandboxHostError
from tests.support.host import Workshop

PERMISSIONS = {"subprocess": True, "threads": True}
GRANTS: dict[str, Any] = {"sample": PERMISSIONS}

SOURCE = '''
import concurrent.futures
import multiprocessing
import subprocess


def in_child(work, *arguments):
    """Return the exit status of a forked child, which is the number of the error that it met."""
    child = os.fork()
    if child == 0:
        number = 0
        try:
            work(*arguments)
        except OSError as error:
            number = error.errno
        finally:
            os._exit(number)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def spin(seconds=None):
    until = None if seconds is None else time.process_time() + seconds
    while until is None or time.process_time() < until:
        pass


def leave(work, *arguments):
    """Have a process do something whose parent has ended: a daemon."""
    def start():
        if os.fork() == 0:
            os.setsid()
            try:
                work(*arguments)
            finally:
                os._exit(0)
    in_child(start)


def square(number):
    return number * number


def feed(end, queue):
    end.send("by pipe")
    queue.put("by queue")


def add(counter):
    with counter.get_lock():
        counter.value += 1


@operation
def fork():
    receive, send = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(send, b"hello")
        os._exit(7)
    status = os.waitpid(child, 0)[1]
    return [os.read(receive, 100), os.waitstatus_to_exitcode(status)]


@operation
def return_in_a_copy():
    return "the copy" if os.fork() == 0 else "the plugin"


@operation
def run(code, **options):
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, **options
    )
    return [done.returncode, done.stdout, done.stderr]


@operation
def spawn_without_pipes(code):
    return subprocess.run([sys.executable, "-c", code], timeout=30).returncode


@operation
def posix_spawn():
    child = os.posix_spawn(sys.executable, [sys.executable, "-c", "raise SystemExit(5)"], {})
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@operation
def kill_what_runs():
    child = subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
    child.kill()
    return child.wait(30)


@operation
def process(method):
    chosen = multiprocessing.get_context(method)
    mine, theirs = chosen.Pipe()
    queue = chosen.SimpleQueue()
    child = chosen.Process(target=feed, args=(theirs, queue))
    child.start()
    found = [mine.recv(), queue.get()]
    child.join()
    return [*found, child.exitcode]


@operation
def pool(method):
    with multiprocessing.get_context(method).Pool(2) as workers:
        return workers.map(square, [1, 2, 3])


@operation
def executor(method):
    chosen = multiprocessing.get_context(method)
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=chosen) as workers:
        return list(workers.map(square, [1, 2, 3]))


@operation
def shared_value():
    chosen = multiprocessing.get_context("fork")
    counter = chosen.Value("i", 0)
    children = [chosen.Process(target=add, args=(counter,)) for _ in range(3)]
    for child in children:
        child.start()
    for child in children:
        child.join()
    return counter.value


@operation
def execute(path, *arguments):
    return in_child(os.execv, path, [path, *arguments])


@operation
def execute_what_it_wrote(program=None, loader=None):
    path = os.path.join(context().scratch_dir, "program")
    content = f"#!{sys.executable}\\n".encode()
    if program is not None:
        with open(program, "rb") as file:
            content = file.read()
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, 0o700)
    return in_child(os.execv, loader or path, [loader or path, path])


@operation
def execute_memory():
    return in_child(lambda: os.memfd_create("program"))


@operation
def signal_from_child(pid, number):
    return in_child(os.kill, pid, number)


@operation
def signal_threads_of_the_plugin(number):
    threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
    others = [int(name) for name in os.listdir("/proc/self/task") if int(name) != os.getpid()]
    return [in_child(os.kill, thread, number) for thread in others]


@operation
def bomb():
    while True:
        try:
            os.fork()
        except OSError:
            pass


@operation
def hog():
    def grow():
        kept = []
        while True:
            kept.append(bytearray(os.urandom(1 << 20)))
    return in_child(grow)


@operation
def spin_in_children(count):
    children = [multiprocessing.get_context("fork").Process(target=spin) for _ in range(count)]
    for child in children:
        child.start()
    for child in children:
        child.join()


@operation
def short_lives(count, seconds):
    for _ in range(count):
        in_child(spin, seconds)


@operation
def leave_spinning():
    leave(spin)


@operation
def leave_sleeping():
    leave(time.sleep, 600)


def orphan():
    """Have a process end whose parent has ended before it."""
    receive, send = os.pipe()
    leave(int)
    os.close(send)
    os.read(receive, 1)  # nothing comes; it is the orphan's end
    os.close(receive)


@operation
def orphans(count):
    for _ in range(count):
        orphan()
    child = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    for _ in range(count):
        orphan()
    return child.wait(30)


@operation
def write_in_a_daemon(size):
    def write():
        path = os.path.join(context().data_dir, "hidden")
        with open(path, "wb") as file:
            os.unlink(path)
            file.write(bytes(size))
            file.flush()
            time.sleep(600)
    leave(write)


@operation
def connect(port, copy=False):
    import socket
    address = ("127.0.0.1", port)
    if copy:
        return in_child(socket.create_connection, address)
    with socket.create_connection(address) as made:
        return made.getpeername()[1]


@operation
def publish_in_a_copy():
    return in_child(context().publish, "model_updated", {})


@operation
def scratch():
    return sorted(os.listdir(context().scratch_dir))
'''


def main(trust_store: str, state_dir: str, bundle: str) -> None:
    """Load the bundle, have it leave a daemon, and never return."""
    config = HostConfig(trust_store=Path(trust_store), state_dir=Path(state_dir), grants=GRANTS)
    with SandboxHost.blocking(config) as host:
        plugin = host.load(bundle)
        plugin.call("leave_sleeping")
        print(json.dumps(plugin.receipt.pid), flush=True)
        threading.Event().wait()


def refusal() -> str:
    """Return why a host of this user refuses such a plugin, or ""."""
    with tempfile.TemporaryDirectory() as directory:
        workshop = Workshop(Path(directory))
        bundle = workshop.write(SOURCE, permissions=PERMISSIONS)
        with SandboxHost.blocking(workshop.config(grants=GRANTS)) as host:
            try:
                host.load(bundle)
            except SandboxHostError as error:
                return f"{type(error).__name__}: {error}"
    return ""


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(*sys.argv[1:])
    else:
        print(refusal())
