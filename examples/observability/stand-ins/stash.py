"""Takes messages off the queue and puts them into search."""

import json
import pathlib
import time

import serve

config = json.loads(pathlib.Path("/app/etc/stash.json").read_text())
queue = serve.queue(config["coordinator"])
serve.ready()
while True:
    message = serve.ask(queue, f"take {config['topic']}")
    if message:
        serve.get(f"{config['search']}/{config['index']}/_doc", {"message": message})
    else:
        time.sleep(0.05)
