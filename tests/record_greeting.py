#!/usr/bin/env python3
"""Records what a client library says on a new connection.

    tests/record_greeting.py NAME WRITES COMMAND...

Starts redis-server behind a listener, runs COMMAND with PORT replaced by the listener's port, and
prints the first WRITES writes of its first connection as JSON under NAME. The files in
core/tests/vectors/greetings are made with it; their README.md has the commands.
"""

import json
import socket
import subprocess
import sys
import tempfile
import threading

PATIENCE_SECONDS = 20


def pass_on(source, target, heard=None):
    """Copies bytes until the end, and keeps each read in `heard`."""
    try:
        while data := source.recv(65536):
            if heard is not None:
                heard.append(data.decode("latin-1"))
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # The command has seen enough.


def serve(listener, path, connections):
    while True:
        client, _ = listener.accept()
        server = socket.socket(socket.AF_UNIX)
        server.connect(path)
        heard = []
        connections.append(heard)
        for arguments in [(client, server, heard), (server, client)]:
            threading.Thread(target=pass_on, args=arguments, daemon=True).start()


def main():
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    name, writes, command = sys.argv[1], int(sys.argv[2]), sys.argv[3:]
    with tempfile.TemporaryDirectory() as folder:
        path = folder + "/redis.sock"
        server = subprocess.Popen(
            ["redis-server", "--port", "0", "--unixsocket", path, "--save", "", "--dir", folder],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            while "ready to accept connections" not in (line := server.stdout.readline()).lower():
                if not line:
                    sys.exit("redis-server does not start")
            listener = socket.create_server(("127.0.0.1", 0))
            connections = []
            threading.Thread(
                target=serve, args=(listener, path, connections), daemon=True
            ).start()
            port = str(listener.getsockname()[1])
            subprocess.run(
                [word.replace("PORT", port) for word in command],
                stdout=subprocess.DEVNULL,
                cwd=folder,
                timeout=PATIENCE_SECONDS,
                check=False,
            )
        finally:
            server.terminate()
            server.wait()
    if not connections or len(connections[0]) < writes:
        sys.exit(f"only this came: {connections}")
    json.dump({"client": name, "writes": connections[0][:writes]}, sys.stdout, indent=2)
    print()


main()
