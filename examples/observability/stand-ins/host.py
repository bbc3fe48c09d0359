"""Says whether it sees the processes of the host, which it does in the host's namespace alone."""

import os
import time

import serve

assert os.getpid() != 1, "these are the processes of a container"
print("process 1 of the host is", open("/proc/1/comm").read().strip())
serve.ready()
while True:
    time.sleep(3600)
