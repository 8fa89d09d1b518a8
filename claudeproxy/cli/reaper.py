"""A program that runs beside the daemon and outlives it: standard library only, no site packages.

If the daemon is killed, its CLIs find their pipes closed. Each exits by itself once it has finished
its answer, and before that a renewal of the login, which would be lost if it were killed; one at
rest waits for a renewal two seconds only. Those that have not exited in time are killed here, with
their whole process groups.

    python -I -S reaper.py GRACE     (on stdin: lines of "+GROUP" and "-GROUP")
"""

import os
import signal
import sys
import time


def main(grace: float) -> None:
    os.setsid()  # not to get a Ctrl-C in the daemon's terminal
    groups: set[int] = set()
    for line in sys.stdin:
        group = int(line[1:])
        if line[0] == "+":
            groups.add(group)
        else:
            groups.discard(group)
    until = time.monotonic() + grace
    while groups and time.monotonic() < until:
        time.sleep(0.05)
        groups = set(filter(_lives, groups))
    for group in groups:
        _signal(group, signal.SIGKILL)


def _lives(group: int) -> bool:
    return _signal(group, 0)


def _signal(group: int, number: int) -> bool:
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


if __name__ == "__main__":
    main(float(sys.argv[1]))
