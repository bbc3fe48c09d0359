"""One page of what metrics and tracing know."""

import socket

import serve


def answer(method, path, body):
    return {
        "host": socket.gethostname(),
        "up": serve.get("http://metrics:9090/api/v1/query?query=up"),
        "traces": len(serve.get("http://tracing:16686/api/traces")["hits"]),
    }


serve.pages(3000, answer)
