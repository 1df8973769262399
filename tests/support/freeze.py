"""Stops one thread of a process, until standard input ends. Says `frozen`, or `refused` and why.

Usage: freeze.py THREAD
"""

import ctypes
import os
import sys

ATTACH, DETACH = 16, 17
WALL = 0x40000000  # waits for threads, too


def main():
    libc = ctypes.CDLL(None, use_errno=True)
    thread = int(sys.argv[1])
    if libc.ptrace(ATTACH, thread, None, None) != 0:
        print("refused", os.strerror(ctypes.get_errno()), flush=True)
        return
    os.waitpid(thread, WALL)
    print("frozen", flush=True)
    sys.stdin.read()
    libc.ptrace(DETACH, thread, None, None)


main()
