#!/usr/bin/env python3
"""Runs the same commands under docker and under rengine, and prints what differs.

    duel.py RENGINE [CASES...]      as root; CASES are files beside this one, all of them unless named

Needs the packages docker.io, docker-registry and busybox-static. Docker has a network namespace of its own, and each of the two
has a registry that lets everybody in (port 25000) and one that lets `user` in, whose password is `secret` (port 25001).
README.md says which differences are meant.
"""

import difflib
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ALL = ["containers.cases", "flows.cases", "networks.cases", "volumes.cases", "images.cases", "registry.cases", "builds.dockerfiles"]
LINKS = """cat cut df echo env grep head hostname id kill ln ls mkdir mknod nc nslookup ping printf ps pwd seq sh sleep sort stat
stty tail tar touch tr true tty wc yes""".split()
PASSWD = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000::/home/user:/bin/sh\n"
GROUP = "root:x:0:\nuser:x:1000:\nwheel:x:10:user\n"
USERS = "user:$2b$05$.z1pcBpgFw3qfKkos4egq./Ner0eKVKVFc8GkgDT34bMaiH3Le.Le\n"
REGISTRY = """version: 0.1
log: {{accesslog: {{disabled: true}}, level: error}}
storage: {{filesystem: {{rootdirectory: {work}/{name}-{port}}}, delete: {{enabled: true}}}}
http: {{addr: '127.0.0.1:{port}'}}
{auth}
"""
FRESH = """docker ps -aq | xargs -r docker rm -fv
docker volume ls -q | xargs -r docker volume rm
docker network prune -f
docker image prune -af
docker import $BOX box"""
# What is another value in every run, and by what it is replaced.
VARIABLE = [
    (r"sha256:[0-9a-f]{64}", "sha256:<digest>"),
    (r"\b[0-9a-f]{64}\b", "<digest>"),
    (r"\b(?=[0-9a-f]*[a-f])(?=[0-9a-f]*[0-9])[0-9a-f]{12}\b", "<id>"),
    (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d+)?(Z| ?[+-]\d\d:?\d\d( [A-Z]+)?)?", "<time>"),
    (r"(Less than a second|About a minute|\d+ (seconds?|minutes?)) ago", "<ago>"),
    (r"\b\d+\.\d+s\b", "<span>"),
    (r"rengine", "docker"),
]


class Side:
    """One engine with its registries: how a case is run there."""

    def __init__(self, name, work, command, prefix, variables):
        self.directory = work / name
        for part in ["bin", "home", "cwd"]:
            (self.directory / part).mkdir(parents=True)
        docker = self.directory / "bin/docker"
        docker.write_text(f'#!/bin/sh\nexec {" ".join([*prefix, command])} "$@"\n')
        docker.chmod(0o755)
        path = f"{docker.parent}:{os.environ['PATH']}"
        self.environment = os.environ | variables | {
            "PATH": path, "HOME": str(self.directory / "home"), "BOX": str(work / "box.tar"),
            "DOCKER_BUILDKIT": "1", "DOCKER_CLI_EXPERIMENTAL": "enabled",
        }
        self.registries = []
        for port, auth in [(25000, ""), (25001, f"auth: {{htpasswd: {{realm: duel, path: {work}/htpasswd}}}}")]:
            config = self.directory / f"{port}.yml"
            config.write_text(REGISTRY.format(work=work, name=name, port=port, auth=auth))
            self.registries.append(background([*prefix, "docker-registry", "serve", str(config)], work / "log"))

    def run(self, case):
        done = subprocess.run(
            ["timeout", "--kill-after", "1", "60", "bash", "-c", case], env=self.environment, cwd=self.directory / "cwd", stdin=subprocess.DEVNULL,
            capture_output=True, text=True, errors="replace", check=False)
        return done.returncode, self.settled(done.stdout), self.settled(done.stderr)

    def settled(self, text):
        text = text.replace(str(self.directory), "<directory>")
        for pattern, name in VARIABLE:
            text = re.sub(pattern, name, text)
        return "\n".join(line.rstrip() for line in text.strip("\n").split("\n"))


def background(command, log):
    with open(log, "ab") as file:
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=file, stderr=file)


def start_docker(work):
    """A daemon in a network namespace of its own."""
    socket = f"unix://{work}/docker.sock"
    daemon = background(
        ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", "dockerd", "--data-root", f"{work}/data",
         "--exec-root", f"{work}/exec", "--host", socket, "--pidfile", f"{work}/pid"], work / "log")
    for _ in range(300):
        if subprocess.run(["/usr/bin/docker", "-H", socket, "version"], capture_output=True, check=False).returncode == 0:
            return daemon, socket
        time.sleep(0.1)
    sys.exit((work / "log").read_text())


def make_box(work):
    root = work / "box"
    for part in ["bin", "tmp", "etc", "proc", "sys", "dev"]:
        (root / part).mkdir(parents=True)
    (root / "bin/busybox").write_bytes(Path("/bin/busybox").read_bytes())
    (root / "bin/busybox").chmod(0o755)
    for link in LINKS:
        (root / "bin" / link).symlink_to("busybox")
    (root / "etc/passwd").write_text(PASSWD)
    (root / "etc/group").write_text(GROUP)
    subprocess.run(["tar", "-C", root, "-cf", work / "box.tar", "."], check=True)


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
    started = []
    with tempfile.TemporaryDirectory(prefix="duel-", dir="/var/tmp") as directory:
        work = Path(directory)
        (work / "htpasswd").write_text(USERS)
        make_box(work)
        try:
            daemon, socket = start_docker(work)
            started.append(daemon)
            inside = ["nsenter", "-t", str(daemon.pid), "-n"]
            docker = Side("docker", work, "/usr/bin/docker", inside, {"DOCKER_HOST": socket})
            started += docker.registries
            ours = Side("rengine", work, str(Path(rengine).absolute()), [], {"RENGINE_ROOT": f"{work}/root"})
            started += ours.registries
            for file in files:
                for side in [docker, ours]:
                    side.run(FRESH)
                results = [compare(case, docker.run(case), ours.run(case)) for case in cases(file)]
                print(f"{file.name}: {results.count(True)} the same, {results.count(False)} not")
            ours.run("docker ps -aq | xargs -r docker rm -f; docker system down")
        finally:
            for process in reversed(started):
                process.send_signal(signal.SIGTERM)
                process.wait()
            subprocess.run(["umount", f"{work}/exec/netns/default"], capture_output=True, check=False)


if __name__ == "__main__":
    main()
