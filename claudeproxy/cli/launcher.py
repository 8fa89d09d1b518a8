"""Runs as a program of its own between the daemon and ``claude``: stdlib only, no site packages.

``spawnProcess`` offers neither a process group of its own nor death with the parent, and its
``path`` argument turns a cheap ``posix_spawn`` into a ``fork`` of the whole daemon. So the daemon
spawns this, which arranges all three and becomes the CLI by ``exec``: same pid, same pipes.

    python -I -S launcher.py DAEMON_PID WORKING_DIRECTORY EXECUTABLE [ARGUMENT ...]
"""

import os
import resource
import select
import signal
import sys
import time

PR_SET_PDEATHSIG = 1


def main(daemon: int, directory: str, command: "list[str]") -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold what was said
    os.chdir(directory)
    if sys.platform == "linux":
        _die_with_parent()
    else:
        _watch(daemon)
    if os.getppid() != daemon:
        sys.exit("the daemon is gone")
    os.execv(command[0], command)


def _die_with_parent() -> None:
    import ctypes  # only here: it costs 10 ms of start-up

    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


def _watch(daemon: int) -> None:
    """Leave a watcher in the group that kills it once the daemon or the CLI is gone."""
    group = os.getpid()
    if os.fork():
        return
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    _wait_for_end(daemon, group)
    os.killpg(group, signal.SIGKILL)


def _wait_for_end(daemon: int, group: int) -> None:
    if sys.platform == "darwin":
        queue = select.kqueue()
        ends = [
            select.kevent(pid, select.KQ_FILTER_PROC, select.KQ_EV_ADD, select.KQ_NOTE_EXIT)
            for pid in (daemon, group)
        ]
        queue.control(ends, 1)
    else:
        while os.getppid() == group and _alive(daemon):
            time.sleep(0.2)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2], sys.argv[3:])
