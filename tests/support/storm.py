"""Connects many times at once, asks each connection for a PING, and tells how it went.

Arguments: port, first of four source addresses (the last byte of 127.0.1.x), count, seconds that
all of it may take. Prints `served refused milliseconds`, then holds what it has until its input
ends.
"""
import select
import socket
import sys
import time

port, first, count, patience = (int(word) for word in sys.argv[1:])
epoll = select.epoll()
start = time.monotonic()
waiting = {}
# All begin before anybody looks how it went.
for number in range(count):
    client = socket.socket()
    client.setblocking(False)
    # Each address has ports of its own, some 28,000.
    client.bind((f"127.0.1.{first + number % 4}", 0))
    client.connect_ex(("127.0.0.1", port))
    epoll.register(client, select.EPOLLOUT)
    waiting[client.fileno()] = client
served, refused = [], 0
while waiting and time.monotonic() < start + patience:
    for number, events in epoll.poll(1):
        client = waiting[number]
        try:
            if events & select.EPOLLOUT and not events & select.EPOLLERR:
                client.send(b"*1\r\n$4\r\nPING\r\n")
                epoll.modify(client, select.EPOLLIN)
                continue
            reply = client.recv(64)
        except OSError:
            reply = b""
        epoll.unregister(client)
        del waiting[number]
        if reply == b"+PONG\r\n":
            served.append(client)
        else:
            refused += 1
            client.close()
print(len(served), refused, int((time.monotonic() - start) * 1000), flush=True)
sys.stdin.read()
