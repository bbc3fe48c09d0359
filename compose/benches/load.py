"""Asks a port of this machine 200 times a second until it is interrupted: each time on a connection of its own, or with
`keep` on 32 connections that are kept for as long as the server keeps them.

Prints how many requests there were, how many of them failed, and how many of those because they were refused.
"""

import concurrent.futures
import http.client
import signal
import sys
import threading
import time

RATE = 200
KEPT = 32

port = int(sys.argv[1])
keeps = sys.argv[2:] == ["keep"]
going = True
mine = threading.local()


def end(_signal, _frame):
    global going
    going = False


def connection():
    if not keeps:
        return http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    # One that the server let go of is made again by the next request.
    if not hasattr(mine, "connection"):
        mine.connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    return mine.connection


def ask():
    asked = connection()
    try:
        asked.request("GET", "/page")
        answer = asked.getresponse()
        text = answer.read()
        if not keeps:
            asked.close()
        return "answered" if answer.status == 200 and text else "failed"
    except (OSError, http.client.HTTPException) as error:
        asked.close()
        if isinstance(error, ConnectionRefusedError):
            return "refused"
        print(repr(error), file=sys.stderr)
        return "failed"


def ask_at(first, pause):
    """Asks at times a pause apart. Whoever keeps a connection asks on it all the time."""
    outcomes = []
    while going:
        ahead = first + len(outcomes) * pause - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
        outcomes.append(ask())
    return outcomes


signal.signal(signal.SIGINT, end)
with concurrent.futures.ThreadPoolExecutor(64) as pool:
    begin = time.monotonic()
    if keeps:
        clients = [pool.submit(ask_at, begin + number / RATE, KEPT / RATE) for number in range(KEPT)]
        outcomes = [outcome for client in clients for outcome in client.result()]
    else:
        answers = []
        while going:
            answers.append(pool.submit(ask))
            ahead = begin + len(answers) / RATE - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
        outcomes = [answer.result() for answer in answers]
refused = outcomes.count("refused")
print(len(outcomes), outcomes.count("failed") + refused, refused)
