#!/usr/bin/env python3
"""Runs the same commands under docker and under rengine, and prints what differs.

    duel.py RENGINE [CASES...]      as root; CASES are files beside this one, all of them unless named

Needs the packages docker.io, docker-registry and busybox-static. Docker has a network namespace of its own, and each of the two
has a registry that lets everybody in (port 25000) and one that lets `user` in, whose password is `secret` (port 25001).
README.md says which differences are meant.
"""

import difflib
import re
import sys
from pathlib import Path

from arena import Arena

HERE = Path(__file__).resolve().parent
ALL = ["containers.cases", "flows.cases", "networks.cases", "volumes.cases", "images.cases", "registry.cases", "builds.dockerfiles"]
FRESH = """docker ps -aq | xargs -r docker rm -fv
docker volume ls -q | xargs -r docker volume rm
docker network prune -f
docker image prune -af
docker import $BOX box"""


def cases(path):
    """A case begins with `$ ` at the beginning of a line, and goes on until the next."""
    text = path.read_text()
    if path.suffix == ".dockerfiles":
        return [build_case(block) for block in re.split(r"(?m)^===", text)[1:]]
    return [case.strip() for case in re.split(r"(?m)^\$ ", text) if case.strip()]


def build_case(block):
    """`=== FLAGS | COMMANDS THAT MAKE FILES`, and the Dockerfile."""
    head, dockerfile = block.split("\n", 1)
    flags, _, files = head.partition("|")
    return f"""rm -rf context && mkdir context && cd context || exit
{files.strip()}
cat >Dockerfile <<'END_OF_DOCKERFILE'
{dockerfile}
END_OF_DOCKERFILE
docker build --progress plain -t built {flags.strip()} . 2>../error || {{ grep -v '^#' ../error >&2; exit 1; }}
docker image inspect built --format '{{{{json .Config.Env}}}} {{{{json .Config.Cmd}}}} {{{{json .Config.Entrypoint}}}}
{{{{json .Config.Labels}}}} {{{{json .Config.ExposedPorts}}}} {{{{json .Config.Volumes}}}} {{{{if ne .Config.WorkingDir "/"}}}}{{{{.Config.WorkingDir}}}}{{{{end}}}}
{{{{.Config.User}}}} {{{{.Config.StopSignal}}}} {{{{json .Config.Healthcheck}}}} {{{{len .RootFS.Layers}}}}'
docker history --no-trunc --format '{{{{.CreatedBy}}}}' built
docker create --name it built x >/dev/null 2>&1
docker export it | tar --numeric-owner -tv | awk '{{print $1, $2, $3, $6, $7, $8}}' | grep -Ev ' (\\.dockerenv|(bin|dev|etc|proc|sys)/)'
docker rm it >/dev/null"""


def compare(case, theirs, ours):
    """Of errors and warnings, only whether there are some: each has its own words for them."""
    if theirs[:2] == ours[:2] and bool(theirs[2]) == bool(ours[2]):
        return True
    print(f"=== {case}")
    if theirs[0] != ours[0]:
        print(f"  exit code: docker {theirs[0]}, rengine {ours[0]}")
    differing = [("output", theirs[1], ours[1])]
    if theirs[0] != ours[0] or bool(theirs[2]) != bool(ours[2]):
        differing.append(("error", theirs[2], ours[2]))
    for name, a, b in differing:
        if a != b:
            lines = list(difflib.unified_diff(a.split("\n"), b.split("\n"), lineterm="", n=1))[2:]
            print(f"  {name}:", *(f"    {line}" for line in lines if not line.startswith("@@")), sep="\n")
    return False


def main():
    rengine, *names = sys.argv[1:] or sys.exit(__doc__)
    files = [HERE / name for name in names or ALL]
    with Arena() as arena:
        docker, ours = arena.docker(), arena.rengine(Path(rengine).absolute())
        for file in files:
            for side in [docker, ours]:
                side.run(FRESH)
            results = [compare(case, docker.run(case), ours.run(case)) for case in cases(file)]
            print(f"{file.name}: {results.count(True)} the same, {results.count(False)} not")
        ours.run("docker ps -aq | xargs -r docker rm -f; docker system down")


if __name__ == "__main__":
    main()
