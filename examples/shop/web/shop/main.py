"""The shop's web service: `serve` answers on port 8000, `migrate` brings the database up to date and ends."""

import argparse
import json
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from shop import store


class Handler(BaseHTTPRequestHandler):
    """GET / shows the shop, POST /orders buys one thing."""

    protocol_version = "HTTP/1.1"

    def do_GET(self):
        if self.path == "/":
            self.answer(200, {
                "served_by": socket.gethostname(),
                "visits": store.count_visit(),
                "products": store.products(),
                "orders": store.orders(),
            })
        elif self.path == "/health":
            store.check()
            self.answer(200, {"healthy": True})
        else:
            self.answer(404, {"error": f"nothing at {self.path}"})

    def do_POST(self):
        if self.path != "/orders":
            return self.answer(404, {"error": f"nothing at {self.path}"})
        length = int(self.headers.get("Content-Length", 0))
        try:
            product = store.parse_order(self.rfile.read(length))
        except ValueError as error:
            return self.answer(400, {"error": str(error)})
        return self.answer(201, {"order": store.order(product)})

    def answer(self, status, value):
        body = json.dumps(value).encode() + b"\n"
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def main():
    parser = argparse.ArgumentParser(prog="shop", description=__doc__)
    parser.add_argument("verb", choices=["serve", "migrate"])
    if parser.parse_args().verb == "migrate":
        store.migrate()
        print("the database is up to date", flush=True)
        return
    try:
        ThreadingHTTPServer(("0.0.0.0", 8000), Handler).serve_forever()
    except KeyboardInterrupt:
        print("good night", flush=True)
