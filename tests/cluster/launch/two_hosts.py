"""`ray up`, `ray submit` and `ray job submit` on two hosts: `two_hosts.py --wheelhouse DIR`.

The hosts are namespaces of this machine (network, processes, mounts, host name) with an SSH server,
one core, a home and a /tmp each; what they share is a directory. Set-up is what `fastformers
launch` wrote, with pip's index replaced by a directory of wheels, which is filled if it is empty.
`ray stop` is left out of it. Root, iproute2, openssh-server, rsync and the package registry are
needed. The commands and what they print go to stdout; the exit status is 0 if all went as promised.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet
import yaml

REPOSITORY = Path(__file__).parents[3]
BIN = Path(sys.executable).parent
BUNDLE = REPOSITORY / "fastformers" / "demo_bundle"
BRIDGE, LAPTOP, NETWORK = "ffbridge", "10.77.0.254", "10.77.0"
HOSTS = {"head": f"{NETWORK}.1", "worker": f"{NETWORK}.2"}
# A shell of the head expands the first; the job server hands arguments on as they are.
REMOTE_BUNDLE = "~/fastformers-cluster/bundle"
JOB_BUNDLE = "/root/fastformers-cluster/bundle"
TUNNEL_PORT = 18265
COLOR = r"\x1b\[[0-9;?]*[a-zA-Z]"
PROGRESS = re.compile(r"%, \d+/\d+ shards|USD so far")
# What Ray prints on a terminal.
STYLE = ("--log-style", "pretty", "--log-color", "false")
START_HOST = """
set -e
hostname {name}
mount --bind {place}/home /root
mount --bind {place}/tmp /tmp
mount -t tmpfs tmpfs /dev/shm
mkdir -p /run/sshd
cd /
exec taskset -c {core} /usr/sbin/sshd -D -e -f {place}/sshd_config
"""


def call(*words, check=True, **options):
    """Run a command of this script's own, in silence."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True, **options)
    if check and done.returncode != 0:
        raise RuntimeError(f"{shlex.join(map(str, words))}: {done.stderr or done.stdout}")
    return done


class Transcript:
    """Commands as a user types them, with what they print."""

    def __init__(self, directory, variables):
        self.directory = directory
        self.text = ""
        self.environment = {
            **{name: os.environ[name] for name in ("PATH", "HOME", "LANG") if name in os.environ},
            **variables,
            "PATH": f"{BIN}:{os.environ['PATH']}",
            "PYTHONPATH": str(REPOSITORY),
        }

    def run(self, *words, status=0, variables=None, timeout=900):
        """Run a command, show it, and insist on its exit status (None: any but 0)."""
        shown = shlex.join(map(str, words))
        prefix = "".join(f"{name}={value} " for name, value in (variables or {}).items())
        self.say(f"$ {prefix}{shown}")
        started = time.monotonic()
        done = subprocess.run(
            [str(word) for word in words],
            cwd=self.directory,
            env={**self.environment, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=timeout,
        )
        self.say(done.stdout.rstrip())
        self.say(f"[exit status {done.returncode} after {time.monotonic() - started:.1f} s]")
        if (done.returncode == 0) if status is None else (done.returncode != status):
            raise RuntimeError(f"{shown}: exit status {done.returncode}")
        return done.stdout

    def say(self, text):
        """Show a text without its colors, empty lines and progress that a later line replaces."""
        lines = [line for line in re.sub(COLOR, "", text).splitlines() if line.strip()]
        pairs = zip(lines, [*lines[1:], ""], strict=True)
        kept = [a for a, b in pairs if not (PROGRESS.search(a) and PROGRESS.search(b))]
        self.text += "\n".join([*kept, ""])
        print("\n".join(kept), flush=True)


def make_network(stack):
    """A bridge that the launching machine and both hosts are on."""
    call("ip", "link", "add", BRIDGE, "type", "bridge")
    stack.callback(call, "ip", "link", "del", BRIDGE, check=False)
    call("ip", "addr", "add", f"{LAPTOP}/24", "dev", BRIDGE)
    call("ip", "link", "set", BRIDGE, "up")
    for number, (name, address) in enumerate(HOSTS.items()):
        space, outer, inner = f"ff-{name}", f"ffout{number}", f"ffin{number}"
        call("ip", "netns", "add", space)
        stack.callback(call, "ip", "netns", "del", space, check=False)
        # A namespace keeps its end until its last process is gone.
        stack.callback(call, "ip", "link", "del", outer, check=False)
        call("ip", "link", "add", outer, "type", "veth", "peer", "name", inner)
        call("ip", "link", "set", inner, "netns", space)
        call("ip", "link", "set", outer, "master", BRIDGE, "up")
        for words in (
            ("addr", "add", f"{address}/24", "dev", inner),
            ("link", "set", inner, "up"),
            ("link", "set", "lo", "up"),
            ("route", "add", "default", "via", LAPTOP),
        ):
            call("ip", "-n", space, *words)


def make_host(stack, name, core, work):
    """Start the SSH server of a host; all of its processes end with it."""
    place = work / name
    for folder in ("home/.config/pip", "tmp"):
        (place / folder).mkdir(parents=True)
    (place / "tmp").chmod(0o1777)
    shutil.copy("/etc/skel/.bashrc", place / "home" / ".bashrc")
    (place / "home/.config/pip/pip.conf").write_text(
        f"[global]\nno-index = true\nfind-links = {work}/wheels\n"
        "disable-pip-version-check = true\n[install]\nno-compile = true\n"
    )
    call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", place / "host_key")
    (place / "sshd_config").write_text(
        f"HostKey {place}/host_key\nAuthorizedKeysFile {work}/key.pub\nStrictModes no\n"
        f"PermitRootLogin prohibit-password\nUsePAM no\nPidFile none\n"
        f"Subsystem sftp internal-sftp\nAcceptEnv LANG\n"
    )
    script = START_HOST.format(name=name, place=place, core=core)
    with (work / f"{name}.log").open("w") as log:
        isolate = ["unshare", "--mount", "--pid", "--uts", "--fork", "--kill-child", "--mount-proc"]
        process = subprocess.Popen(
            ["ip", "netns", "exec", f"ff-{name}", *isolate, "sh", "-c", script],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    stack.callback(end, process)


def end(process):
    """End a process of this script's; a host's others are its PID namespace and go with it."""
    process.send_signal(signal.SIGKILL)
    process.wait()


def write_files(transcript, work):
    """Let `fastformers launch` write the cluster's files, and take `ray stop` out."""
    transcript.run(
        *("fastformers", "launch", "--cloud", "local"),
        *("--head-ip", HOSTS["head"], "--worker-ips", HOSTS["worker"]),
        *("--ssh-user", "root", "--ssh-key", work / "key"),
        *("--bundle", BUNDLE, "--output", "launch"),
    )
    path = work / "launch" / "cluster.yaml"
    config = yaml.safe_load(path.read_text())
    for name in ("head_start_ray_commands", "worker_start_ray_commands"):
        _, start = config[name]
        # Ray counts the CPUs of the whole machine, not those that a host's processes may use.
        config[name] = [f"{start} --num-cpus=1 --object-store-memory=104857600"]
    path.write_text(yaml.safe_dump(config, sort_keys=False, width=10_000))
    token = work / "launch" / "auth_token"
    assert token.stat().st_mode & 0o777 == 0o600
    return token


def wait_for_nodes(transcript, number, timeout_s=400):
    """Wait until Ray has so many nodes, and show its status then."""
    deadline = time.monotonic() + timeout_s
    command = ("ray", "exec", "launch/cluster.yaml", "ray list nodes | grep -c ALIVE")
    while True:
        found = subprocess.run(
            command,
            cwd=transcript.directory,
            env=transcript.environment,
            capture_output=True,
            text=True,
        )
        lines = found.stdout.split()
        if str(number) in lines:
            return
        if time.monotonic() > deadline:
            raise RuntimeError(f"{number} nodes did not come: {found.stdout} {found.stderr}")
        time.sleep(5)


def predictions(output):
    parts = sorted((output / "predictions").glob("part-*.parquet"))
    return pa.concat_tables(pyarrow.parquet.read_table(p).replace_schema_metadata() for p in parts)


def score_words(work, output, bundle):
    return (
        *(work / "corpus" / "heldout.parquet", "--bundle", bundle),
        *("--output", work / "shared" / output, "--keep-columns", "library"),
    )


def check_tokens(transcript, work, token):
    """The job server and the control store refuse who has no token, or a wrong one."""
    server = f"http://127.0.0.1:{TUNNEL_PORT}"
    wrong = work / "wrong_token"
    wrong.write_text("0" * 64)
    submit = ("ray", "job", "submit", "--address", server, "--", "fastformers", "--help")
    without = {"RAY_AUTH_MODE": "disabled"}
    with_wrong = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(wrong)}
    score = ("fastformers", "score", BUNDLE, "--bundle", BUNDLE, "--output", work / "shared" / "no")
    for variables in (without, with_wrong):
        refused = transcript.run(*submit, status=None, variables=variables)
        assert "uthenticat" in refused, refused
        address = ("--address", f"{HOSTS['head']}:6379")
        corpus = work / "corpus" / "heldout.parquet"
        words = (*score[:2], corpus, *score[3:], *address)
        refused = transcript.run(*words, status=2, variables=variables)
        assert "refuses the connection" in refused.splitlines()[-1], refused
    right = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
    transcript.run(*submit, variables=right)
    return right


def check_secret(transcript, work, token):
    """The token is in no file but those that were made for it, and in nothing that was printed."""
    secret = token.read_bytes()
    assert secret.decode() not in transcript.text
    places = [work / "launch", work / "shared", *(work / name / "home" for name in HOSTS)]
    places += [work / name / "tmp" for name in HOSTS]
    holders = set()
    for path in (path for place in places for path in place.rglob("*")):
        if "site-packages" in path.parts or not path.is_file() or path.is_symlink():
            continue
        if secret in path.read_bytes():
            holders.add(path)
    remote = {work / name / "home/fastformers-cluster/auth_token" for name in HOSTS}
    assert holders == {token, *remote}, holders
    assert all(path.stat().st_mode & 0o077 == 0 for path in holders)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wheelhouse", type=Path, required=True)
    wheelhouse = parser.parse_args(arguments).wheelhouse.resolve()
    fill(wheelhouse)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the hosts end with this script
    with ExitStack() as stack:
        # Not in /tmp, which each host has for itself; short, for Ray's sockets have 107 bytes.
        work = Path(tempfile.mkdtemp(prefix="ffh-", dir="/var/tmp"))
        stack.callback(shutil.rmtree, work, ignore_errors=True)
        shutil.copytree(wheelhouse, work / "wheels")
        (work / "shared").mkdir()
        (work / "laptop").mkdir()
        call("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", work / "key")
        make_network(stack)
        cores = sorted(os.sched_getaffinity(0))
        for number, name in enumerate(HOSTS):
            make_host(stack, name, cores[number % len(cores)], work)
        transcript = Transcript(work, {"RAY_TMPDIR": str(work / "laptop"), "COLUMNS": "100"})
        use(transcript, work, stack)
    print("all went as promised")


def use(transcript, work, stack):
    """What a user does, from the launch files to the comparison of predictions."""
    call(BIN / "fastformers", "demo", "--write-corpus", work / "corpus", env=transcript.environment)
    token = write_files(transcript, work)
    transcript.run("ray", "up", "--yes", *STYLE, "launch/cluster.yaml")
    wait_for_nodes(transcript, 2)
    transcript.run("ray", "exec", *STYLE, "launch/cluster.yaml", "ray status")
    script = REPOSITORY / "jobs" / "score.py"
    shown = transcript.run(
        "ray",
        "submit",
        *STYLE,
        "launch/cluster.yaml",
        script,
        "--",
        *score_words(work, "submitted", REMOTE_BUNDLE),
    )
    assert f"using the Ray cluster at {HOSTS['head']}:6379" in shown, shown
    tunnel = subprocess.Popen(
        [
            *("ssh", "-N", "-L", f"{TUNNEL_PORT}:127.0.0.1:8265", "-i", str(work / "key")),
            *("-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"),
            *("-o", "ExitOnForwardFailure=yes", f"root@{HOSTS['head']}"),
        ],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    stack.callback(end, tunnel)
    right = check_tokens(transcript, work, token)
    server = f"http://127.0.0.1:{TUNNEL_PORT}"
    submit = ("ray", "job", "submit", "--address", server, "--", "fastformers", "score")
    words = score_words(work, "job", JOB_BUNDLE)
    transcript.run(*submit, *words, variables=right)
    relative = (*words[:3], "--output", "out")
    refused = transcript.run(*submit, *relative, status=None, variables=right)
    assert "--output out: a job of Ray's job server" in refused
    check_secret(transcript, work, token)
    words = (*score_words(work, "alone", BUNDLE), "--address", "local")
    transcript.run("fastformers", "score", *words)
    expected = predictions(work / "shared" / "alone")
    assert expected.num_rows > 1000
    for output in ("submitted", "job"):
        assert predictions(work / "shared" / output).equals(expected)


def fill(wheelhouse):
    """Download what a machine of a cluster installs, unless it is there."""
    wheelhouse.mkdir(parents=True, exist_ok=True)
    if not any(wheelhouse.glob("ray-*.whl")):
        packages = yaml.safe_load(call(sys.executable, "-c", REQUIREMENTS).stdout)
        call(sys.executable, "-m", "pip", "download", "-q", "-d", wheelhouse, *packages)


REQUIREMENTS = f"""
import importlib.metadata, json, pathlib, tomllib
project = tomllib.loads(pathlib.Path({str(REPOSITORY / "pyproject.toml")!r}).read_text())["project"]
extra = project["optional-dependencies"]["cluster"]
ray = f"ray[default]=={{importlib.metadata.version('ray')}}"
print(json.dumps([*project["dependencies"], *extra, ray]))
"""


if __name__ == "__main__":
    main()
