"""Asks a port of this machine 200 times a second, each time on a connection of its own, until it is interrupted.

Prints how many requests there were, how many of them failed, and how many of those because they were refused.
"""

import concurrent.futures
import http.client
import signal
import sys
import time

port = int(sys.argv[1])
going = True


def end(_signal, _frame):
    global going
    going = False


def ask():
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("GET", "/page")
        answer = connection.getresponse()
        return "answered" if answer.status == 200 and answer.read() else "failed"
    except ConnectionRefusedError:
        return "refused"
    except (OSError, http.client.HTTPException) as error:
        print(repr(error), file=sys.stderr)
        return "failed"
    finally:
        connection.close()


signal.signal(signal.SIGINT, end)
with concurrent.futures.ThreadPoolExecutor(64) as pool:
    answers = []
    begin = time.monotonic()
    while going:
        answers.append(pool.submit(ask))
        ahead = begin + len(answers) / 200 - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
    outcomes = [answer.result() for answer in answers]
refused = outcomes.count("refused")
print(len(outcomes), outcomes.count("failed") + refused, refused)
