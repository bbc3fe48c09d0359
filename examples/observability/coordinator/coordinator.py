"""Keeps names and values: `set NAME VALUE`, `get NAME`, `ruok`."""

import pathlib
import socketserver

known = {}


class Handler(socketserver.StreamRequestHandler):
    def handle(self):
        verb, _, rest = self.rfile.readline().decode().rstrip("\n").partition(" ")
        name, _, value = rest.partition(" ")
        if verb == "set":
            known[name] = value
        reply = "imok" if verb == "ruok" else known.get(name, "")
        self.wfile.write(reply.encode() + b"\n")


socketserver.ThreadingTCPServer.allow_reuse_address = True
with socketserver.ThreadingTCPServer(("", 2181), Handler) as server:
    pathlib.Path("/tmp/ready").touch()
    server.serve_forever()
