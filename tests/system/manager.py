# SPDX-License-Identifier: Apache-2.0
"""What a service manager does, as far as tests of the daemons need it.
manager.py listen SOCKET   a datagram socket as NOTIFY_SOCKET names one; prints "PID TEXT" for each message, line feeds as " | "
manager.py hold PID NAME   stops the one thread NAME of a process, as a debugger does, and lets it go when standard input ends"""
import ctypes, os, socket, sys, time

PTRACE_SEIZE, PTRACE_INTERRUPT, WALL = 0x4206, 0x4207, 0x40000000


def listen(path):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.setsockopt(socket.SOL_SOCKET, socket.SO_PASSCRED, 1)
    s.bind(path)
    while True:
        text, ancillary, _, _ = s.recvmsg(4096, 256)
        pid = next(int.from_bytes(d[:4], "little") for level, kind, d in ancillary if kind == socket.SCM_CREDENTIALS)
        print(pid, text.decode().replace("\n", " | "), flush=True)


def hold(pid, name):
    libc = ctypes.CDLL(None, use_errno=True)
    libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    tids = [int(t) for t in os.listdir(f"/proc/{pid}/task") if open(f"/proc/{pid}/task/{t}/comm").read().strip() == name]
    assert len(tids) == 1, f"{len(tids)} threads {name} in {pid}"
    for request in PTRACE_SEIZE, PTRACE_INTERRUPT:
        if libc.ptrace(request, tids[0], None, None) != 0:
            sys.exit(f"ptrace: {os.strerror(ctypes.get_errno())}")
    os.waitpid(tids[0], WALL)
    print("held", flush=True)
    sys.stdin.read()		# the end of this process lets the thread go


if sys.argv[1] == "listen":
    listen(sys.argv[2])
else:
    hold(int(sys.argv[2]), sys.argv[3])
