"""A program that runs between the daemon and ``claude``: standard library only, no site packages.

``spawnProcess`` cannot create a process group, and its ``path`` argument turns a cheap
``posix_spawn`` into a ``fork`` of the whole daemon. So the daemon spawns this, which sets up both
and then becomes the CLI by ``exec``, with the same pid and pipes.

    python -I -S launcher.py WORKING_DIRECTORY EXECUTABLE [ARGUMENT ...]
"""

import os
import resource
import sys


def main(directory: str, command: "list[str]") -> None:
    os.setsid()
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))  # a core dump would hold what was said
    os.chdir(directory)
    os.execv(command[0], command)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
