"""Keeps documents, a line each, and finds those that contain a text."""

import json
import os
import pathlib
import threading
import urllib.parse

import serve

assert os.environ["discovery.type"] == "single-node"
lock = threading.Lock()


def answer(method, path, body):
    url = urllib.parse.urlparse(path)
    index, _, verb = url.path.strip("/").partition("/")
    file = pathlib.Path("/documents", f"{index or 'none'}.ndjson")
    with lock:
        if verb == "_doc" and method == "POST":
            with file.open("a") as documents:
                documents.write(json.dumps(json.loads(body)) + "\n")
            return {"result": "created"}
        if verb == "_search":
            wanted = urllib.parse.parse_qs(url.query).get("q", [""])[0]
            lines = file.read_text().splitlines() if file.exists() else []
            return {"hits": [json.loads(line) for line in lines if wanted in line]}
    return {"name": "search"}


serve.pages(9200, answer)
