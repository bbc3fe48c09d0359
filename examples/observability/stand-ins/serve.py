"""What every stand-in needs: pages of JSON, and the line protocol of queue and coordinator."""

import http.server
import json
import pathlib
import socket
import time
import urllib.request


def ready():
    pathlib.Path("/tmp/ready").touch()


def pages(port, answer):
    """Serves what `answer(method, path, body)` returns, for ever."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            length = int(self.headers.get("Content-Length") or 0)
            found = answer(self.command, self.path, self.rfile.read(length))
            body = json.dumps(found).encode()
            self.send_response(404 if found is None else 200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(("", port), Handler)
    ready()
    server.serve_forever()


def get(url, body=None):
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(url, data), timeout=5) as reply:
        return json.load(reply)


def ask(address, line):
    """Says one line to the queue or the coordinator, and hears one."""
    host, port = address.rsplit(":", 1)
    with socket.create_connection((host, int(port)), timeout=5) as connection:
        connection.sendall(line.encode() + b"\n")
        return connection.makefile().readline().rstrip("\n")


def queue(coordinator):
    """The queue's address, as soon as the coordinator knows it."""
    while not (address := ask(coordinator, "get queue")):
        time.sleep(0.05)
    return address
