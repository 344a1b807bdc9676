"""Which names reach for what: tables, by the rule that they break.

A name is what a source calls it after its imports are followed, such as ``os.system``. The ids are
those of `sandbox_host.scan.rules`, which says what each of them means.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final


def _by_name(table: Mapping[str, str]) -> dict[str, str]:
    return {name: rule for rule, names in table.items() for name in names.split()}


def _below(prefix: str, names: str) -> str:
    return " ".join(f"{prefix}.{name}" for name in names.split())


IMPORTS: Final = _by_name(
    {
        "SH101": "socket ssl _socket _ssl http.client http.server urllib.request urllib3 requests "
        "httpx aiohttp ftplib smtplib poplib imaplib nntplib telnetlib xmlrpc socketserver "
        "websockets websocket paramiko pycurl tornado twisted grpc zmq dns scapy wsgiref "
        "boto3 botocore psycopg psycopg2 pymysql redis pymongo",
        "SH111": "subprocess _posixsubprocess multiprocessing _multiprocessing pty pexpect sh "
        "plumbum",
        "SH121": "_thread concurrent.futures",
        "SH131": "ctypes _ctypes cffi _cffi_backend pycparser numba cython pyximport llvmlite",
        "SH214": "runpy zipimport imp pkgutil _imp _frozen_importlib "
        "_frozen_importlib_external importlib.machinery importlib.util importlib.abc "
        "importlib._bootstrap importlib._bootstrap_external",
        "SH251": "marshal",
        "SH252": "pickle _pickle cPickle shelve dill cloudpickle jsonpickle",
        "SH244": "plugin_sdk.child plugin_sdk.lockdown plugin_sdk.wire plugin_sdk.nursery",
    }
)
"""Modules, with all that is below them, by the rule that their import breaks."""

_FORKS: Final = (
    "system popen fork forkpty posix_spawn posix_spawnp execl execle execlp execlpe execv execve "
    "execvp execvpe spawnl spawnle spawnlp spawnlpe spawnv spawnve spawnvp spawnvpe startfile"
)
_HOOKS: Final = "settrace setprofile addaudithook setswitchinterval"

NAMES: Final = _by_name(
    {
        "SH102": "socket.socket socket.create_connection socket.create_server socket.socketpair "
        "socket.fromfd _socket.socket ssl.SSLContext ssl.create_default_context "
        "asyncio.open_connection asyncio.start_server asyncio.open_unix_connection "
        "asyncio.start_unix_server http.client.HTTPConnection http.client.HTTPSConnection "
        "urllib.request.urlopen urllib.request.urlretrieve urllib.request.Request "
        "urllib.request.build_opener requests.get requests.post requests.put requests.delete "
        "requests.head requests.patch requests.request requests.Session httpx.get httpx.post "
        "httpx.Client httpx.AsyncClient aiohttp.ClientSession ftplib.FTP ftplib.FTP_TLS "
        "smtplib.SMTP smtplib.SMTP_SSL poplib.POP3 imaplib.IMAP4 imaplib.IMAP4_SSL "
        "telnetlib.Telnet xmlrpc.client.ServerProxy",
        "SH112": f"{_below('os', _FORKS)} {_below('posix', _FORKS)} subprocess.run "
        "subprocess.Popen subprocess.call subprocess.check_call subprocess.check_output "
        "subprocess.getoutput subprocess.getstatusoutput pty.spawn pty.fork "
        "multiprocessing.Process multiprocessing.Pool asyncio.create_subprocess_exec "
        "asyncio.create_subprocess_shell concurrent.futures.ProcessPoolExecutor "
        "concurrent.futures.process.ProcessPoolExecutor webbrowser.open",
        "SH122": "threading.Thread threading.Timer _thread.start_new_thread _thread.start_new "
        "concurrent.futures.ThreadPoolExecutor concurrent.futures.thread.ThreadPoolExecutor "
        "asyncio.to_thread multiprocessing.pool.ThreadPool multiprocessing.dummy.Pool",
        "SH132": "ctypes.CDLL ctypes.PyDLL ctypes.WinDLL ctypes.cdll ctypes.pythonapi "
        "ctypes.CFUNCTYPE ctypes.cast ctypes.from_address ctypes.memmove ctypes.string_at "
        "_ctypes.dlopen cffi.FFI mmap.PROT_EXEC numpy.ctypeslib.load_library",
        "SH142": "os.putenv os.unsetenv posix.putenv posix.environ os.environb os.getenvb",
        "SH201": "builtins.eval builtins.exec builtins.compile builtins.execfile "
        "code.InteractiveInterpreter code.InteractiveConsole code.interact "
        "code.compile_command codeop.compile_command codeop.Compile timeit.timeit timeit.Timer "
        "doctest.testmod doctest.run_docstring_examples cProfile.run profile.run trace.Trace "
        "bdb.Bdb pdb.run pdb.runeval pandas.eval",
        "SH213": "builtins.breakpoint pdb.set_trace",
        "SH214": "sys.path sys.modules sys.meta_path sys.path_hooks sys.path_importer_cache "
        "importlib.reload importlib.machinery importlib.util importlib._bootstrap "
        "pkgutil.get_loader pkgutil.find_loader site.addsitedir codecs.register "
        "imp.load_source imp.load_module builtins.__loader__ builtins.__spec__",
        "SH240": f"{_below('sys', _HOOKS)} threading.settrace threading.setprofile "
        "threading.settrace_all_threads threading.setprofile_all_threads sys.monitoring "
        "sys.activate_stack_trampoline sys.setdlopenflags sys.set_coroutine_origin_tracking_depth",
        "SH242": "gc.get_objects gc.get_referrers gc.get_referents sys._getframe "
        "sys._current_frames sys._current_exceptions inspect.currentframe inspect.stack "
        "inspect.trace inspect.getouterframes sys.setrecursionlimit faulthandler.enable "
        "faulthandler.dump_traceback_later resource.setrlimit resource.prlimit signal.signal "
        "signal.setitimer signal.alarm os.kill os.killpg os.setuid os.setgid os.chroot "
        "os.unshare os.setns os.pidfd_open os.dup2 os.closerange os._exit atexit.register "
        "atexit._run_exitfuncs atexit.unregister",
        "SH251": "marshal.loads marshal.load",
        "SH252": "pickle.loads pickle.load pickle.Unpickler _pickle.loads _pickle.load "
        "shelve.open dill.loads dill.load cloudpickle.loads cloudpickle.load joblib.load "
        "jsonpickle.decode torch.load pandas.read_pickle numpy.lib.format.read_array "
        "yaml.unsafe_load yaml.unsafe_load_all yaml.full_load yaml.Loader yaml.UnsafeLoader "
        "yaml.FullLoader multiprocessing.connection.Connection copyreg.pickle "
        "logging.config.listen logging.config.dictConfig",
    }
)
"""Functions, classes and objects by the rule that any mention of them breaks."""

CALLS: Final = _by_name({"SH203": "types.CodeType types.FunctionType types.LambdaType"})
"""The same, where they are called; otherwise they are compared with."""

POWERFUL: Final = frozenset(
    {
        *("builtins", "os", "posix", "sys", "socket", "subprocess", "ctypes", "importlib", "gc"),
        *("inspect", "types", "marshal", "pickle", "signal", "threading", "_thread"),
        *("multiprocessing", "shutil", "plugin_sdk"),
    }
)
"""Modules of which a computed name may be anything."""

IMPORTERS: Final[Mapping[str, str]] = {
    "builtins.__import__": "SH211",
    "importlib.__import__": "SH211",
    "importlib.import_module": "SH212",
}
"""What imports by a computed name, by the rule for that; a plain name counts as an import."""

EXECUTORS: Final = frozenset({"builtins.eval", "builtins.exec", "builtins.compile"})
DECODERS: Final = frozenset(
    [
        "base64.b64decode",
        "base64.b32decode",
        "base64.b16decode",
        "base64.b85decode",
        "base64.a85decode",
        "base64.decodebytes",
        "base64.urlsafe_b64decode",
        "base64.standard_b64decode",
        "binascii.unhexlify",
        "binascii.a2b_base64",
        "binascii.a2b_hex",
        "zlib.decompress",
        "bz2.decompress",
        "lzma.decompress",
        "gzip.decompress",
        "codecs.decode",
        "builtins.bytes.fromhex",
        "marshal.loads",
        "builtins.bytes",
        "builtins.bytearray",
        "builtins.chr",
        "builtins.bytearray.fromhex",
    ]
)
"""What makes text of something that nobody reads as text."""

GETTERS: Final = frozenset(
    [
        "builtins.getattr",
        "builtins.setattr",
        "builtins.delattr",
        "builtins.hasattr",
        "inspect.getattr_static",
    ]
)
NAMESPACES: Final = frozenset({"builtins.globals", "builtins.locals", "builtins.vars"})
DICTIONARIES: Final = frozenset({"get", "pop", "setdefault", "__getitem__"})

ATTRIBUTES: Final = _by_name(
    {
        "SH230": "__subclasses__ __globals__ __builtins__ __code__ __closure__ func_globals "
        "func_code co_code co_consts f_globals f_builtins",
        "SH231": "__mro__ __bases__ __base__ __loader__ __reduce__ __reduce_ex__ "
        "__getattribute__ __init_subclass__ __class_getitem__ __subclasshook__ __wrapped__ mro",
        "SH232": "f_locals f_back f_code f_trace gi_frame gi_code cr_frame cr_code "
        "ag_frame ag_code tb_frame",
    }
)
"""Attributes of any object, by the rule that reading or setting them breaks."""

ORDINARY_METHODS: Final = frozenset(
    [
        "__reduce__",
        "__reduce_ex__",
        "__getattribute__",
        "__init_subclass__",
        "__class_getitem__",
        "__subclasshook__",
    ]
)
"""Those of them that a class defines in the ordinary way, without reaching into another."""

DUNDER_TEXTS: Final = (
    *("__subclasses__", "__globals__", "__builtins__", "__code__", "__closure__", "__import__"),
    *("f_globals", "gi_frame", "tb_frame"),
)
"""What has no business in a text, unless it is looked up by it."""

HOOKED: Final = frozenset(
    [
        "sys.excepthook",
        "sys.unraisablehook",
        "sys.displayhook",
        "sys.breakpointhook",
        "threading.excepthook",
        "sys.stdin",
        "sys.stdout",
        "sys.stderr",
        "sys.__stdout__",
        "sys.__stderr__",
    ]
)
"""What acts on the whole process when it is assigned to; to read it is nothing."""

_READS: Final = (
    "listdir scandir walk fwalk stat lstat access readlink chdir statvfs open"  # os.open: see mode
)
_WRITES: Final = (
    "remove unlink rename renames replace mkdir makedirs rmdir removedirs link symlink chmod "
    "chown truncate mkfifo mknod utime"
)
_PATHS: Final = "Path PosixPath PurePath PurePosixPath"

FILES: Final = _by_name(
    {
        "read": f"builtins.open io.open io.FileIO io.open_code codecs.open {_below('os', _READS)} "
        f"{_below('posix', _READS)} {_below('pathlib', _PATHS)} glob.glob glob.iglob "
        "linecache.getline linecache.getlines fileinput.input shutil.copy shutil.copyfile "
        "shutil.copytree "
        "shutil.copy2 mmap.mmap gzip.open bz2.open lzma.open zipfile.ZipFile tarfile.open "
        "tarfile.TarFile sqlite3.connect numpy.load numpy.loadtxt numpy.genfromtxt "
        "numpy.fromfile numpy.memmap pandas.read_csv pandas.read_json pandas.read_parquet",
        "write": f"{_below('os', _WRITES)} {_below('posix', _WRITES)} shutil.rmtree shutil.move "
        "shutil.chown shutil.make_archive shutil.unpack_archive numpy.save numpy.savetxt",
    }
)
"""What takes a path as its first argument, by what it does there."""

MOVERS: Final = frozenset(
    [
        "shutil.copy",
        "shutil.copyfile",
        "shutil.copytree",
        "shutil.copy2",
        "shutil.move",
        "os.rename",
        "os.replace",
        "os.link",
        "os.symlink",
    ]
)
"""What writes to the path that is its second argument."""

PATH_WRITERS: Final = frozenset(
    [
        "write_text",
        "write_bytes",
        "unlink",
        "touch",
        "mkdir",
        "rmdir",
        "rename",
        "replace",
        "symlink_to",
        "hardlink_to",
        "chmod",
    ]
)
"""Methods of a path that change what is there."""

HARMLESS_FILES: Final = frozenset(
    {"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom", "/tmp"}  # noqa: S108 - a name
)
"""What every plugin has; its temporary directory is its own."""

SENSITIVE: Final = (
    *("/etc/passwd", "/etc/shadow", "/etc/sudoers", "/proc/self", "/proc/1/", "/proc/sys"),
    *("/sys/fs/cgroup", "/sys/kernel", "/dev/mem", "/dev/kmsg", "/var/run/docker.sock"),
    *("/run/docker.sock", ".ssh/", "id_rsa", "id_ed25519", ".aws/credentials", ".netrc"),
    *(".docker/config.json", ".kube/config", ".git-credentials", ".bash_history", ".bashrc"),
    *("authorized_keys", ".config/sandbox-host", "169.254.169.254", "metadata.google.internal"),
)
"""What a text names that no plugin has a use for."""

ADDRESSED: Final = frozenset(
    [
        "socket.create_connection",
        "asyncio.open_connection",
        "http.client.HTTPConnection",
        "http.client.HTTPSConnection",
        "ftplib.FTP",
        "ftplib.FTP_TLS",
        "smtplib.SMTP",
        "smtplib.SMTP_SSL",
        "poplib.POP3",
        "imaplib.IMAP4",
        "imaplib.IMAP4_SSL",
        "telnetlib.Telnet",
    ]
)
"""What takes a host and a port, as two arguments or as a pair."""

DEFAULT_PORTS: Final[Mapping[str, int]] = {
    "http": 80,
    "https": 443,
    "ws": 80,
    "wss": 443,
    "ftp": 21,
    "http.client.HTTPConnection": 80,
    "http.client.HTTPSConnection": 443,
    "ftplib.FTP": 21,
    "ftplib.FTP_TLS": 21,
    "smtplib.SMTP": 25,
    "smtplib.SMTP_SSL": 465,
    "poplib.POP3": 110,
    "imaplib.IMAP4": 143,
    "imaplib.IMAP4_SSL": 993,
    "telnetlib.Telnet": 23,
}
"""By scheme, and by what connects."""


def rule_of(table: Mapping[str, str], name: str) -> str:
    """Return the rule for a dotted name, or for what it lies below; "" for none."""
    while name:
        if name in table:
            return table[name]
        name = name.rpartition(".")[0]
    return ""


def rules_named() -> Iterable[str]:
    """Return every rule that a table here names."""
    return {
        *IMPORTS.values(),
        *NAMES.values(),
        *CALLS.values(),
        *ATTRIBUTES.values(),
        *IMPORTERS.values(),
    }
