"""Keeps messages by topic: `put TOPIC MESSAGE`, `take TOPIC`. The coordinator learns where it is."""

import collections
import os
import pathlib
import socket
import socketserver

topics = collections.defaultdict(collections.deque)


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        verb, _, rest = self.rfile.readline().decode().rstrip("\n").partition(" ")
        topic, _, message = rest.partition(" ")
        if verb == "put":
            topics[topic].append(message)
        taken = topics[topic].popleft() if verb == "take" and topics[topic] else ""
        self.wfile.write(taken.encode() + b"\n")


socketserver.ThreadingTCPServer.allow_reuse_address = True
with socketserver.ThreadingTCPServer(("", 9092), Handler) as server:
    host, port = os.environ["QUEUE_COORDINATOR"].split(":")
    with socket.create_connection((host, int(port)), timeout=5) as coordinator:
        coordinator.sendall(f"set queue {os.environ['QUEUE_ADVERTISED_HOST_NAME']}:9092\n".encode())
        coordinator.makefile().readline()
    pathlib.Path("/tmp/ready").touch()
    server.serve_forever()
