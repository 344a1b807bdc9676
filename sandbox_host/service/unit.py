"""The systemd unit of the service (systemd.service(5), systemd.exec(5)).

What a unit may take away is decided by what the host needs to confine plugins: namespaces, mounts
inside of them, seccomp filters of its own. Each option that is there, and each that is not, has its
reason beside it. `docs/operations.md` says what `doctor` shows inside of it.
"""

from __future__ import annotations

from typing import Final

_UNIT: Final = """\
# sandbox-host as a service. Printed by `sandbox-host unit`; systemd 240 or newer.
# Put it into /etc/systemd/system/sandbox-host.service, then:
#   systemctl daemon-reload && systemctl enable --now sandbox-host

[Unit]
Description=Sandbox host: runs signed plugins, confined
Documentation=man:systemd.service(5)
After=local-fs.target network.target
# Five failed starts in a minute are no accident; an operator has to look.
StartLimitIntervalSec=60
StartLimitBurst=5

[Service]
# Ready is said when the plugins are loaded; status and signs of life follow. With systemd 253,
# Type=notify-reload also has `systemctl reload` wait until the configuration was read.
Type=notify
NotifyAccess=main
ExecStart={program} run --stay{config}
ExecReload=/bin/kill -HUP $MAINPID
# Signs of life are given only while the watchdog of the plugins looks at them.
WatchdogSec=30
Restart=on-failure
RestartSec=2
# SIGTERM to the host alone: it has the plugins finish and clean up. The kernel ends what is left
# with the host, and systemd what is left of the group.
KillMode=mixed
# Start and stop timeout of the configuration, and a margin; the host says so itself, too.
TimeoutStopSec=60
TimeoutStartSec=infinity

# An account that owns nothing else.
User={user}
StateDirectory=sandbox-host
StateDirectoryMode=0700
Environment=XDG_STATE_HOME=/var/lib XDG_CONFIG_HOME=/etc
UMask=0077

# A group of its own for each plugin: memory, CPU and tasks are then bounded by the kernel.
Delegate=yes
# The host gives memory and descriptors to plugins one by one; what all may take together is here.
TasksMax=4096
LimitNOFILE=65536

# -- what helps, and leaves the plugins' confinement as it is ---------------------------------
# With all of these, `sandbox-host doctor` shows the same guarantees as without them.
NoNewPrivileges=yes
CapabilityBoundingSet=
# Outside of its state directory the host writes nothing. A directory that is granted with `write`
# needs a line ReadWritePaths= of its own; one below /home takes another ProtectHome=.
ProtectSystem=strict
ProtectHome=yes
PrivateTmp=yes
PrivateDevices=yes
ProtectClock=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictRealtime=yes
LockPersonality=yes
KeyringMode=private
RemoveIPC=yes
SystemCallArchitectures=native
# AF_NETLINK: to set up loopback in a plugin's network namespace, and to count its traffic.
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK

# -- what must stay off, because it takes away what plugins are confined with -------------------
# RestrictNamespaces=       every plugin has namespaces of its own; without, only Landlock, seccomp
#                             and the watchdog are left, and four guarantees are degraded
# RestrictSUIDSGID=         refuses openat2 (ENOSYS), with which a plugin's own root is put together
# SystemCallFilter=         mount, pivot_root, unshare, seccomp and landlock_* are needed, and no
#                             plugin loads without; a plugin's own filter is much stricter
# ProtectHostname=          a plugin's UTS namespace gets a name of its own; without, it has none
# ProtectControlGroups=     the host makes groups below its own
# ProtectProc=              hides the plugins from the host where they have no user namespace, and
#                             what the host cannot look at it does not let in
# ProcSubset=               the host reads /proc/sys and mounts of its own
# MemoryDenyWriteExecute=   plugins inherit it, and those with native code break
# PrivateUsers=             whoever is neither root nor this user becomes nobody: what an operator
#                             of another name owns, such as a trust store, is refused then
# DynamicUser=              brings RestrictSUIDSGID= along, and a link for a state directory
# PrivateNetwork=           network that was granted is connected by the host

[Install]
WantedBy=multi-user.target
"""

DEFAULT_USER: Final = "sandbox"


def unit_text(program: str, user: str = DEFAULT_USER, config: str = "") -> str:
    """Return the unit.

    Args:
        program: what is started, with an absolute path, quoted as systemd reads it.
        user: the account.
        config: the host's TOML, quoted likewise; "" for the default, /etc/sandbox-host/config.toml.
    """
    return _UNIT.format(program=program, user=user, config=f" --config {config}" if config else "")


def quoted_word(text: str) -> str:
    r"""Return a word of a command line as systemd reads it: ``%``, ``$``, quotes and spaces kept.

    Raises:
        ValueError: it holds a control character, which no unit carries.
    """
    if not text.isprintable():
        what = "a unit's command line holds no control characters"
        raise ValueError(what)
    kept = text.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%").replace("$", "$$")
    return f'"{kept}"' if set(text) & set(" '\"\\;") else kept
