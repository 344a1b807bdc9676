#!/bin/sh
# Makes .venv (the host and its tools) and .plugin-env (what plugins may import), from the lock
# files, and only what is missing or out of date. Run by `make env`; $1 may name a Python. `make test`
# gives client-env as $2: what plugins of the tests may import.
#
# Each environment ends with a stamp that holds everything it was made from. A stamp that differs
# means: make it again. Without a stamp it was never finished. So an interrupted installation,
# another Python, a moved directory and a changed lock file all lead to the same short path.
set -eu
umask 022 # plugins run with few rights: what they may import must be readable
cd "$(dirname "$0")/.."

VENV=.venv
STAMP=.made-from

fail() {
    printf 'make env: %s\n' "$1" >&2
    exit 1
}

# A name in PATH may be a shim without an interpreter behind it, or too old: ask it.
usable() {
    [ "$("$1" -c 'import sys
print((3, 11) <= sys.version_info[:2] <= (3, 14) and sys.implementation.name)' 2>&1)" = cpython ]
}

can_make_venv() {
    "$1" -c 'import ensurepip, venv' >/dev/null 2>&1
}

find_python() { # the operator's choice, or nothing
    chosen=$1
    without_venv=
    [ -n "$chosen" ] || set -- python3 python3.13 python3.12 python3.11 python3.14
    for candidate; do
        usable "$candidate" || continue
        if can_make_venv "$candidate"; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
        without_venv=${without_venv:-$candidate}
    done
    if [ -n "$without_venv" ]; then
        fail "$without_venv cannot make a virtual environment, because its module ensurepip is \
missing. Debian and Ubuntu keep it in a package of its own: run \`apt install python3-venv\` as \
root and try again."
    elif [ -n "$chosen" ]; then
        fail "PYTHON=$chosen is not a working CPython 3.11 to 3.14, for which the lock files hold \
wheels. Give the path of one."
    fi
    fail "no CPython 3.11 to 3.14 found in PATH (tried python3 and python3.11 to python3.14). \
Install one (Debian and Ubuntu: \`apt install python3 python3-venv\`; Fedora: \`dnf install \
python3.12\`; macOS: python.org's installer), or name yours: \`make env PYTHON=/path/to/python3\`."
}

# What the environment at hand would be made from: interpreter, place, and the given files.
ingredients() {
    "$1" -c 'import os, platform, sys
print(platform.python_version(), platform.machine(), os.path.realpath(sys.executable), os.getcwd())'
    shift
    cat "$@"
}

fresh() { # stamp, then the arguments of ingredients
    stamp=$1
    shift
    [ -f "$stamp" ] && ingredients "$@" 2>/dev/null | cmp -s - "$stamp"
}

pip_install() { # quiet: its warnings are about the machine, its errors are shown
    "$VENV/bin/python" -m pip -qq --disable-pip-version-check --no-input install "$@"
}

make_venv() {
    echo "Making $VENV with $("$python" --version) (once; about half a minute)"
    rm -rf "$VENV"
    "$python" -m venv "$VENV"
    # Wheels only: a source archive would run code of its own, unpinned, to be built.
    pip_install --require-hashes --only-binary :all: --requirement requirements.lock
    ingredients "$VENV/bin/python" requirements.lock >"$VENV/$STAMP"
}

install_package() {
    rm -f "$VENV/$STAMP-package"
    pip_install --no-deps --no-build-isolation --no-index --editable .
    "$VENV/bin/python" -m pip --disable-pip-version-check check >/dev/null ||
        fail "requirements.lock lacks something that pyproject.toml asks for. Run \`make lock\`."
    ingredients "$VENV/bin/python" pyproject.toml >"$VENV/$STAMP-package"
}

make_target() { # a directory of packages, and its lock file
    echo "Making $1"
    rm -rf "$1"
    pip_install --require-hashes --only-binary :all: --no-compile --no-warn-script-location \
        --target "$1" --requirement "$2"
    # Plugins cannot write here, so without byte code they would compile at every start. The
    # packages' own tests are never imported.
    "$VENV/bin/python" -m compileall -qq -j 0 -x '/tests/' "$1" ||
        fail "compiling $1 failed. Remove it and try again."
    ingredients "$VENV/bin/python" "$2" >"$1/$STAMP"
}

# An environment that works stays as it is, unless a Python was named and is another one.
if [ -n "${1:-}" ] || ! fresh "$VENV/$STAMP" "$VENV/bin/python" requirements.lock; then
    python=$(find_python "${1:-}")
    fresh "$VENV/$STAMP" "$python" requirements.lock || make_venv
fi
fresh "$VENV/$STAMP-package" "$VENV/bin/python" pyproject.toml || install_package
for target in plugin-env ${2:-}; do
    fresh ".$target/$STAMP" "$VENV/bin/python" "$target.lock" || make_target ".$target" "$target.lock"
done
