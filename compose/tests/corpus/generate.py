#!/usr/bin/env python3
"""Generates projects that combine keys at random, and compares what two programs make of them.

    generate.py REFERENCE OURS FIRST LAST     compare `config` for these seeds; what differs stays in ./differs
    generate.py --keep REFERENCE OURS FIRST LAST     write those that agree as cases of this directory

REFERENCE is docker-compose 2.40.3 and OURS is rcompose. Needs PyYAML. README.md says which differences are meant.
"""
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

HERE = Path(__file__).parent
KEYS = yaml.safe_load((HERE / "keys.yaml").read_text())
TOP = yaml.safe_load((HERE / "top.yaml").read_text())
CONDITIONS = ["service_started", "service_healthy", "service_completed_successfully"]
# What `config` is asked for. The order of names is nobody's.
QUESTIONS = [[], ["--format", "json"], ["--services"], ["--images"], ["--volumes"], ["--networks"], ["--profiles"],
             ["--no-normalize"], ["--no-path-resolution"], ["--no-consistency"]]


def service(dice, name, names):
    others = [other for other in names if other < name]
    condition = lambda: {
        "condition": dice.choice(CONDITIONS), "restart": dice.random() < 0.3, "required": dice.random() < 0.7,
    }
    choices = KEYS | {
        "container_name": ["the-" + name],
        "depends_on": [others, {other: condition() for other in others}],
        "links": [others or ["elsewhere"]],
    }
    keys = dice.sample(sorted(choices), dice.randint(2, 9))
    if "network_mode" in keys and "networks" in keys:
        keys.remove("networks")
    found = {key: dice.choice(choices[key]) for key in keys}
    if "build" not in found:
        found.setdefault("image", "box")
    return found


def project(seed):
    dice = random.Random(seed)
    names = dice.choice([["a", "b", "c"], ["s10", "s9", "s_1"]])[: dice.randint(1, 3)]
    services = {name: service(dice, name, names) for name in names}
    if len(names) > 1 and dice.random() < 0.3:
        services[names[-1]]["extends"] = {"service": names[0]}
    whole = {"services": services} | {section: {key: dice.choice(values) for key, values in entries.items()}
                                      for section, entries in TOP.items()}
    flow = dice.choice([None, False])
    files = {"compose.yaml": yaml.safe_dump(whole, sort_keys=dice.random() < 0.5, default_flow_style=flow)}
    if dice.random() < 0.5:
        over = {name: service(dice, name, names) for name in names}
        for found in over.values():
            found.pop("network_mode", None)
        files["compose.override.yaml"] = yaml.safe_dump({"services": over}, sort_keys=False)
    return files


def config(program, directory, question=()):
    environment = {"HOME": "/root", "PATH": os.environ["PATH"]}
    ran = subprocess.run([program, "config", *question], cwd=directory, env=environment, capture_output=True, text=True)
    text = ran.stdout if ran.returncode == 0 else ran.stderr
    lines = [line for line in text.splitlines() if "level=warning" not in line]
    if question == ["--format", "json"] and ran.returncode == 0:
        whole = json.loads(text)
        whole.pop("models", None)
        lines = json.dumps(whole, indent=1).splitlines()
    elif len(question) == 1 and not question[0].startswith("--no-"):
        lines = sorted(line for line in lines if line)
    return ran.returncode == 0, "\n".join(lines).replace(str(directory), "@DIR@").rstrip() + "\n"


def main():
    arguments = sys.argv[1:]
    keep = arguments[:1] == ["--keep"]
    reference, ours, first, last = arguments[keep:]
    differing = []
    for seed in range(int(first), int(last)):
        with tempfile.TemporaryDirectory() as scratch:
            directory = Path(scratch) / "corpus"
            shutil.copytree(HERE / "shared", directory)
            files = project(seed)
            for name, text in files.items():
                (directory / name).write_text(text)
            (expected_ok, expected), (found_ok, found) = config(reference, directory), config(ours, directory)
            same = expected_ok == found_ok and (not expected_ok or expected == found)
            for question in QUESTIONS[1:] if same and expected_ok else []:
                answers = config(reference, directory, question), config(ours, directory, question)
                if answers[0] != answers[1]:
                    same, expected, found = False, f"# {question}\n{answers[0][1]}", answers[1][1]
                    break
        outcome = {"config.yaml" if expected_ok else "refused": expected}
        if not same:
            differing.append(seed)
            place, outcome = Path("differs") / str(seed), outcome | {"ours": found}
        elif keep:
            place = HERE / str(seed)
        else:
            continue
        place.mkdir(parents=True, exist_ok=True)
        for name, text in (files | outcome).items():
            (place / name).write_text(text)
    print(f"{len(differing)} differ: {differing}")


if __name__ == "__main__":
    main()
