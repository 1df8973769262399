"""Ends one thread of a process by what a runtime can not go on after: the descriptor that the thread
waits on, its ring or its poller, becomes /dev/null, and the next wait fails.

Usage: end_thread.py PROCESS NAME [--without-main]

Says `ready`, or `refused` and why. Ends the thread when a line comes, and says when, in nanoseconds of
the monotonic clock. With --without-main the process' first thread stands still, from before until the
end of standard input.
"""

import ctypes
import os
import platform
import sys
import time

GETREGS, SETREGS, STEP, DETACH = 12, 13, 9, 17
SEIZE, INTERRUPT = 0x4206, 0x4207
WALL = 0x40000000  # waits for threads, too

# Places in the registers, and numbers of system calls, of x86_64.
RAX, RSI, RDI, ORIG_RAX, RIP = 10, 13, 14, 15, 16
EPOLL_WAIT, EPOLL_PWAIT, URING_ENTER, DUP2 = 232, 281, 426, 33
WAITS = {EPOLL_WAIT, EPOLL_PWAIT, URING_ENTER}

libc = ctypes.CDLL(None, use_errno=True)
libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]


class Refused(Exception):
    pass


def trace(request, thread, data=None):
    if libc.ptrace(request, thread, None, data) != 0:
        raise Refused(os.strerror(ctypes.get_errno()))


def stop(thread):
    trace(INTERRUPT, thread)
    os.waitpid(thread, WALL)


def find(process, name):
    for thread in os.listdir(f"/proc/{process}/task"):
        with open(f"/proc/{process}/task/{thread}/comm") as comm:
            if comm.read().strip() == name:
                return int(thread)
    raise Refused(f"no thread {name}")


def end(thread):
    registers = (ctypes.c_ulonglong * 27)()
    while True:
        stop(thread)
        trace(GETREGS, thread, registers)
        if registers[ORIG_RAX] in WAITS:
            break
        trace(DETACH, thread)
        time.sleep(0.001)
        trace(SEIZE, thread)
    before = bytes(registers)
    # The instruction that made the call makes another one: dup2(0, what is waited on).
    registers[RSI] = registers[RDI]
    registers[RDI] = 0
    registers[RAX] = DUP2
    registers[RIP] -= 2
    registers[ORIG_RAX] = (1 << 64) - 1
    trace(SETREGS, thread, registers)
    trace(STEP, thread)
    os.waitpid(thread, WALL)
    trace(GETREGS, thread, registers)
    done = registers[RAX]
    trace(SETREGS, thread, ctypes.create_string_buffer(before, len(before)))
    at = time.monotonic_ns()
    trace(DETACH, thread)
    if done >> 63:
        raise Refused(os.strerror((1 << 64) - done))
    return at


def main():
    process, name = int(sys.argv[1]), sys.argv[2]
    if platform.machine() != "x86_64":
        raise Refused("this is for x86_64")
    thread = find(process, name)
    trace(SEIZE, thread)
    if "--without-main" in sys.argv:
        trace(SEIZE, process)
        stop(process)
    print("ready", flush=True)
    if sys.stdin.readline():
        print(end(thread), flush=True)
    sys.stdin.read()


try:
    main()
except Refused as why:
    print("refused", why, flush=True)
