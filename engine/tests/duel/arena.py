"""Docker and the engine side by side: what a duel starts, how a command is run on each side, and what is replaced in what it says."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

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


def socket(work):
    return f"unix://{work}/docker.sock"


def start_docker(work):
    """A daemon in a network namespace of its own."""
    daemon = background(
        ["unshare", "--net", "sh", "-c", 'ip link set lo up; exec "$@"', "sh", "dockerd", "--data-root", f"{work}/data",
         "--exec-root", f"{work}/exec", "--host", socket(work), "--pidfile", f"{work}/pid"], work / "log")
    for _ in range(300):
        if subprocess.run(["/usr/bin/docker", "-H", socket(work), "version"], capture_output=True, check=False).returncode == 0:
            return daemon
        time.sleep(0.1)
    daemon.terminate()
    daemon.wait()
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


class Arena:
    """Docker in a network namespace of its own, and what both sides are given. All of it is gone when it is left."""

    def __enter__(self):
        self.directory = tempfile.TemporaryDirectory(prefix="duel-", dir="/var/tmp")
        self.work = Path(self.directory.name)
        self.started = []
        (self.work / "htpasswd").write_text(USERS)
        make_box(self.work)
        try:
            self.started.append(start_docker(self.work))
        except BaseException:
            self.__exit__()
            raise
        return self

    def docker(self, side=Side, **more):
        """The side of docker."""
        inside = ["nsenter", "-t", str(self.started[0].pid), "-n"]
        return self.began(side("docker", self.work, "/usr/bin/docker", inside, {"DOCKER_HOST": socket(self.work)}, **more))

    def rengine(self, program, side=Side, **more):
        """Our side."""
        return self.began(side("rengine", self.work, str(program), [], {"RENGINE_ROOT": f"{self.work}/root"}, **more))

    def began(self, side):
        self.started += side.registries
        return side

    def __exit__(self, *_):
        for process in reversed(self.started):
            process.send_signal(signal.SIGTERM)
            process.wait()
        subprocess.run(["umount", f"{self.work}/exec/netns/default"], capture_output=True, check=False)
        self.directory.cleanup()
