"""A view of this machine like that of a bare container: Python and what it loads, some folders, and nothing else.

No git, compiler, shell, home, user name or password file, and of the network only a loopback and its name. Needs the right to
make namespaces.
"""

import os
import shlex
import socket
import subprocess
import sysconfig
from functools import cache
from pathlib import Path

APART = ("unshare", "--user", "--map-root-user", "--mount", "--net", "--pid", "--fork")
DEVICES = ("/dev/null", "/dev/zero", "/dev/urandom")
# What begins inside: it turns the loopback on (SIOCSIFFLAGS, IFF_UP | IFF_RUNNING) and becomes the program.
BEGIN = """
import fcntl, os, socket, struct, sys
fcntl.ioctl(socket.socket(), 0x8914, struct.pack("16sh14x", b"lo", 0x41))
os.chdir(sys.argv[1])
os.execv(sys.argv[2], sys.argv[2:])
"""


@cache
def refusal() -> str:
    """Why such a view cannot be had here; empty where it can."""
    try:
        tried = [*APART, "sh", "-c", "mount -t tmpfs view /mnt && mkdir /mnt/proc && mount -t proc proc /mnt/proc"]
        done = subprocess.run(tried, capture_output=True, text=True)
    except OSError as wrong:
        return f"no namespaces here: {wrong}"
    return f"no namespaces here: {done.stderr.strip()}" if done.returncode else ""


def python_parts(python: Path) -> list[Path]:
    """What the interpreter of a bare environment (`tests.bare`) loads: itself, its library, the packages that are linked, and
    the system's shared libraries."""
    library = Path(sysconfig.get_config_var("LIBDIR"))
    packages = [link.resolve() for link in python.parent.parent.glob("lib/python*/site-packages/*")]
    system = [part for name in ("/lib", "/lib64", "/usr/lib") if Path(name).is_dir() for part in chain(Path(name))]
    standard = Path(sysconfig.get_path("stdlib"))
    return [*system, python.parent.parent, *chain(python), standard, *library.glob("libpython*"), *packages]


def chain(link: Path) -> list[Path]:
    """A path, and all that is on the way where it leads to."""
    return [link, *(chain(link.parent / os.readlink(link)) if link.is_symlink() else [])]


def inside(root: Path, parts: list[Path], folder: Path, *command: str | Path, **settings: str):
    """Run `command` in `folder`, where of this machine only `parts` can be seen, at their places. `root` is an empty folder."""
    lines = ["set -e", f"mount -t tmpfs view {shlex.quote(str(root))}"]
    for part in dict.fromkeys([*parts, *map(Path, DEVICES)]):
        lines += _bound(part, Path(f"{root}{part}"))
    lines += [f"mkdir -p {root}/tmp {root}/proc {root}/etc", f"mount -t proc proc {root}/proc"]
    lines.append(f"echo 127.0.0.1 localhost {shlex.quote(socket.gethostname())} > {root}/etc/hosts")
    begin = [command[0], "-c", BEGIN, folder, *command]
    lines.append(shlex.join(["exec", "chroot", *map(str, (root, *begin))]))
    env = {"PATH": os.environ.get("PATH", os.defpath), "PYTHONDONTWRITEBYTECODE": "1"} | settings
    ask = [*APART, "sh", "-c", "\n".join(lines)]
    return subprocess.run(ask, capture_output=True, text=True, env=env, timeout=1200)


def _bound(part: Path, place: Path) -> list[str]:
    """The lines that make `part` seen at `place`: by a link where it is one, unless it lies in what is there already."""
    where, there = shlex.quote(str(place)), shlex.quote(str(part))
    make = (
        f"ln -s {shlex.quote(str(os.readlink(part)))} {where}"
        if part.is_symlink()
        else f"mount --rbind {there} {where}"
    )
    goal = "" if part.is_symlink() else f"mkdir {where}; " if part.is_dir() else f"touch {where}; "
    return [f"[ -e {where} ] || {{ mkdir -p {shlex.quote(str(place.parent))}; {goal}{make}; }}"]
