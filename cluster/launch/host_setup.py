"""What happens on each machine: files that travel there, set-up commands, start of Ray.

    wheel, token, bundle -> [host_setup] -> ray_cluster_file

All of it is the same on every cloud and on hosts of one's own. This module knows no cloud.
"""

import importlib.metadata
import sys
from dataclasses import dataclass

from fastformers.inference.engines.cuda_setup import CPU_WHEEL, GPU_REQUIREMENT, GPU_WHEEL

# Everything of ours on a machine is in this directory of its user.
HOST_DIRECTORY = "~/fastformers-cluster"
_PROGRAMS = f"{HOST_DIRECTORY}/venv/bin"
_PORT = 6379
_OBJECT_MANAGER_PORT = 8076
# The branch of NVIDIA's driver that CUDA 13 needs, which onnxruntime-gpu is built for.
_DRIVER = "580"


@dataclass(frozen=True, kw_only=True)
class Shipment:
    """Files of the launching machine that every machine of the cluster gets, by path.

    Attributes:
        wheel: This project.
        token: What `write_token` made; None where the cluster makes its own.
        bundle: Directory of a bundle, if it travels too.
    """

    wheel: str
    token: str | None = None
    bundle: str | None = None

    @property
    def wheel_name(self) -> str:
        """Name of the wheel's file, which pip reads the version from."""
        return self.wheel.rpartition("/")[2]


def plan_file_mounts(shipment: Shipment) -> dict[str, str]:
    """Where each file goes, by its path on the machine."""
    mounts = {f"{HOST_DIRECTORY}/{shipment.wheel_name}": shipment.wheel}
    if shipment.token is not None:
        mounts[f"{HOST_DIRECTORY}/auth_token"] = shipment.token
    if shipment.bundle is not None:
        mounts[f"{HOST_DIRECTORY}/bundle"] = shipment.bundle
    return mounts


def plan_setup(shipment: Shipment, *, python: str) -> list[str]:
    """Commands that install this project and Ray, and let a shell find both.

    Args:
        shipment: What was copied to the machine.
        python: Interpreter of the machine that its virtual environment is made from. All machines
            of a Ray cluster need the same minor version.
    """
    wheel = _at_home(f"{HOST_DIRECTORY}/{shipment.wheel_name}")
    variables = {"PATH": f"{_at_home(_PROGRAMS)}:$PATH", **start_variables()}
    profile = " ".join(f"'export {name}=\"{value}\"'" for name, value in variables.items())
    return [
        f"chmod 700 {HOST_DIRECTORY} && chmod 600 {HOST_DIRECTORY}/auth_token",
        f"{python} -c 'import sys; sys.exit(sys.version_info < (3, 11) and "
        '"error: fastformers needs Python 3.11 or newer")\'',
        f"{python} -m venv {HOST_DIRECTORY}/venv",
        f'{_PROGRAMS}/pip install -q "{wheel}[cluster]" "ray[default]=={ray_version()}"',
        # pip keeps an older wheel of the same version otherwise.
        f'{_PROGRAMS}/pip install -q --no-deps --force-reinstall "{wheel}"',
        f"printf '%s\\n' {profile} > {HOST_DIRECTORY}/profile.sh",
        f"grep -qs {HOST_DIRECTORY.removeprefix('~/')}/profile.sh ~/.bashrc || "
        f"echo '. {HOST_DIRECTORY}/profile.sh' >> ~/.bashrc",
    ]


def plan_gpu_setup() -> list[str]:
    """Commands that install NVIDIA's driver and the engine for GPUs where a machine has one.

    Machines without a GPU pass them by, so that a cluster may have both. Ubuntu's driver packages
    need no restart as long as no other driver holds the card, as none does on a server.
    """
    no_card = "! lspci | grep -qi nvidia"
    branch = f"{_DRIVER}-server"
    return [
        f"{no_card} || nvidia-smi -L || (sudo apt-get install -qq -y ubuntu-drivers-common "
        f"nvidia-utils-{branch} && sudo ubuntu-drivers install --gpgpu nvidia:{branch} && "
        "sudo modprobe nvidia && nvidia-smi -L)",
        f"{no_card} || ({_PROGRAMS}/pip uninstall -q -y {CPU_WHEEL} {GPU_WHEEL} && "
        f"{_PROGRAMS}/pip install -q '{GPU_REQUIREMENT}' nvidia-ml-py)",
    ]


def plan_client_setup(packages: str) -> str:
    """Command that installs what Ray needs on the head to start machines of a cloud."""
    return f"{_PROGRAMS}/pip install -q {packages}"


def plan_head_start(*, scores: bool, rents: bool) -> list[str]:
    """Commands that start Ray on the head; its dashboard answers on the head itself alone.

    Args:
        scores: Whether actors may run on the head's CPUs.
        rents: Whether the head starts the other machines at a cloud, rather than reaching hosts
            that are there.
    """
    # `ray up` asks for Ray's second autoscaler, which takes hosts that are there for stopped ones
    # and never starts Ray on them (2.60.0).
    first = "" if rents else 'export RAY_enable_autoscaler_v2="0"; '
    cpus = "" if scores else " --num-cpus=0"
    return [
        f"{_PROGRAMS}/ray stop",
        f"{first}{_start()} --head --port={_PORT} --dashboard-host=127.0.0.1{cpus} "
        "--autoscaling-config=~/ray_bootstrap_config.yaml",
    ]


def plan_worker_start() -> list[str]:
    """Commands that start Ray on another machine and let it join the head."""
    return [f"{_PROGRAMS}/ray stop", f"{_start()} --address=$RAY_HEAD_IP:{_PORT}"]


def start_variables() -> dict[str, str]:
    """Environment of every process of Ray on a machine: who has no token is refused."""
    return {
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": _at_home(f"{HOST_DIRECTORY}/auth_token"),
        "RAY_USAGE_STATS_ENABLED": "0",
    }


def ray_version() -> str:
    """Version of Ray here, which the cluster must have, too."""
    return importlib.metadata.version("ray")


def own_python() -> str:
    """Name of an interpreter of the same minor version as this process."""
    return f"python{sys.version_info.major}.{sys.version_info.minor}"


def _at_home(path: str) -> str:
    """The path in words that a shell expands within quotes, too."""
    return path.replace("~", "$HOME", 1)


def _start() -> str:
    variables = " ".join(f'{name}="{value}"' for name, value in start_variables().items())
    return (
        f"ulimit -n 65536; {variables} {_PROGRAMS}/ray start "
        f"--object-manager-port={_OBJECT_MANAGER_PORT}"
    )
