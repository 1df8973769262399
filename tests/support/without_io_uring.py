"""Runs a program as a container without io_uring would: its system calls fail with EPERM.

Usage: without_io_uring.py PROGRAM [ARGUMENT ...]
"""

import ctypes
import os
import platform
import struct
import sys

SETUP, ENTER, REGISTER = 425, 426, 427  # the same numbers on every architecture
ARCHITECTURES = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 38, 22, 2
LOAD, JUMP_IF_EQUAL, RETURN = 0x20, 0x15, 0x06
ALLOW, FAIL_WITH_EPERM = 0x7FFF0000, 0x00050000 | 1


def filter_program():
    rules = [
        (LOAD, 0, 0, 4),  # the architecture
        (JUMP_IF_EQUAL, 0, 5, ARCHITECTURES[platform.machine()]),
        (LOAD, 0, 0, 0),  # the number of the call
        (JUMP_IF_EQUAL, 2, 0, SETUP),
        (JUMP_IF_EQUAL, 1, 0, ENTER),
        (JUMP_IF_EQUAL, 0, 1, REGISTER),
        (RETURN, 0, 0, FAIL_WITH_EPERM),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("HBBI", *rule) for rule in rules), len(rules)


def main():
    libc = ctypes.CDLL(None, use_errno=True)
    code, count = filter_program()
    rules = ctypes.create_string_buffer(code)
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxP", count, ctypes.addressof(rules)))
    if libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        sys.exit(f"no_new_privs: {os.strerror(ctypes.get_errno())}")
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, program, 0, 0) != 0:
        sys.exit(f"seccomp: {os.strerror(ctypes.get_errno())}")
    os.execv(sys.argv[1], sys.argv[1:])


main()
