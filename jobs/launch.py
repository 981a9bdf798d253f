"""Write the files that a cluster is started from: this project's wheel, a token, `ray up`'s file.

fastformers launch --cloud aws --instance-type c7i.4xlarge --num-workers 4 --output launch/
fastformers launch --cloud local --head-ip 10.0.0.1 --worker-ips 10.0.0.2,10.0.0.3 --output launch/
fastformers launch --cloud kubernetes --image registry/scoring:1 --num-workers 4 --output launch/

Nothing is started and nothing is rented. Run it again after an update of this project; the token
stays the same.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastformers.atomic_file import check_writable
from fastformers.cluster.launch.cloud_machines import CLIENTS, HEAD_TYPE
from fastformers.cluster.launch.kuberay_job import KubernetesCluster
from fastformers.cluster.launch.launch_directory import check_launch_directory, write_launch_files
from fastformers.cluster.launch.ray_cluster_file import CloudCluster, HostCluster
from fastformers.cluster.pricing.prices import find_price, load_prices
from fastformers.errors import InputError
from fastformers.files.hub import parse_hub_uri
from fastformers.inference.bundle import open_bundle
from fastformers.jobs.console.command_parser import CommandParser
from fastformers.jobs.console.output import console, run
from fastformers.jobs.console.progress import waiting

_LOCAL, _KUBERNETES = "local", "kubernetes"
_SAME = "same"
_NEXT_STEP = {_KUBERNETES: "kubectl apply -f"}
# Flags that only some clouds take, by the name of their value.
_TAKEN_BY = {
    "instance_type": tuple(CLIENTS),
    "head_type": tuple(CLIENTS),
    "region": tuple(CLIENTS),
    "num_workers": (*CLIENTS, _KUBERNETES),
    "on_demand": (*CLIENTS, _KUBERNETES),
    "head_ip": (_LOCAL,),
    "worker_ips": (_LOCAL,),
    "ssh_user": (_LOCAL,),
    "ssh_key": (_LOCAL,),
    "image": (_KUBERNETES,),
    "cpus_per_worker": (_KUBERNETES,),
}


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of `fastformers launch`."""
    parser = CommandParser(
        prog="fastformers launch",
        description=__doc__,
    )
    parser.add_argument(
        "--cloud",
        choices=(*CLIENTS, _LOCAL, _KUBERNETES),
        required=True,
        help="where the machines are; local: hosts that you reach by SSH",
    )
    parser.add_argument(
        "--output", type=Path, required=True, metavar="DIR", help="directory to write to"
    )
    parser.add_argument(
        "--bundle",
        type=Path,
        metavar="DIR",
        help="directory of a bundle that travels along (none)",
    )
    clouds = parser.add_argument_group(f"machines of {', '.join(CLIENTS)}, and pods of Kubernetes")
    clouds.add_argument(
        "--instance-type",
        metavar="NAME",
        help="the workers' type, out of the price table (none)",
    )
    clouds.add_argument(
        "--head-type",
        metavar="NAME",
        help=f"type of the on-demand head, which does not score; {_SAME}: as the workers, and it "
        "scores (one of 2 vCPUs)",
    )
    clouds.add_argument("--region", help="region, by the cloud's own name (the price table's)")
    clouds.add_argument("--num-workers", type=int, help="machines or pods beside the head (2)")
    clouds.add_argument(
        "--on-demand", action="store_true", default=None, help="workers on demand, not spot"
    )
    clouds.add_argument("--image", help="name of the container image to build and push (none)")
    clouds.add_argument("--cpus-per-worker", type=int, help="CPUs of each worker pod (8)")
    hosts = parser.add_argument_group("hosts of one's own")
    hosts.add_argument("--head-ip", metavar="ADDRESS", help="address of the head (none)")
    hosts.add_argument("--worker-ips", metavar="A,B", help="addresses of the other hosts (none)")
    hosts.add_argument("--ssh-user", metavar="NAME", help="login on all hosts (ubuntu)")
    hosts.add_argument(
        "--ssh-key",
        metavar="FILE",
        help="private key on this machine, for these hosts alone (~/.ssh/id_ed25519)",
    )
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `fastformers launch`."""
    options = parse(arguments)

    def job() -> dict[str, Any]:
        cluster = _cluster_of(options)
        check_launch_directory(options.output)
        check_writable(options.output / "cluster.yaml")
        if options.bundle is not None:
            _check_bundle(options.bundle)
        with waiting("building the wheel"):
            path = write_launch_files(options.output, cluster, bundle=options.bundle)
        files = sorted(str(file.name) for file in path.parent.iterdir())
        step = _NEXT_STEP.get(options.cloud, "ray up")
        console.print(f"wrote {path}; next: {step} {path}")
        return {"cloud": options.cloud, "file": str(path), "files": files}

    return run(job, options)


def _check_bundle(path: Path) -> None:
    if (place := parse_hub_uri(str(path))) is not None:
        raise InputError(
            f"--bundle {place}: needs no copy; leave it out here, and give it to score on the "
            "cluster, which fetches it"
        )
    open_bundle(path)


def _cluster_of(options: argparse.Namespace) -> CloudCluster | HostCluster | KubernetesCluster:
    for name, clouds in _TAKEN_BY.items():
        if getattr(options, name) is not None and options.cloud not in clouds:
            raise InputError(
                f"--{name.replace('_', '-')} says nothing for --cloud {options.cloud}; leave it out"
            )
    if options.cloud == _LOCAL:
        return _hosts_of(options)
    num_workers = 2 if options.num_workers is None else options.num_workers
    if options.cloud == _KUBERNETES:
        if options.image is None:
            raise InputError("--image: name the image that the pods run, such as registry/name:1")
        return KubernetesCluster(
            image=options.image,
            num_workers=num_workers,
            cpus_per_worker=8 if options.cpus_per_worker is None else options.cpus_per_worker,
            spot=not options.on_demand,
        )
    if options.instance_type is None:
        raise InputError("--instance-type: name the workers' type; fastformers cost compares them")
    worker = find_price(options.instance_type, load_prices())
    if worker.cloud != options.cloud:
        raise InputError(
            f"--cloud {options.cloud}: {worker.instance_type} is a type of {worker.cloud}"
        )
    head = options.head_type or HEAD_TYPE[options.cloud]
    return CloudCluster(
        worker=replace(worker, region=options.region or worker.region),
        num_workers=num_workers,
        spot=not options.on_demand,
        head_type=None if head == _SAME else head,
    )


def _hosts_of(options: argparse.Namespace) -> HostCluster:
    if options.head_ip is None:
        raise InputError("--head-ip: name the host that becomes the head")
    worker_ips = [ip.strip() for ip in (options.worker_ips or "").split(",")]
    return HostCluster(
        head_ip=options.head_ip,
        worker_ips=tuple(ip for ip in worker_ips if ip),
        user=options.ssh_user or "ubuntu",
        key=options.ssh_key or "~/.ssh/id_ed25519",
    )


if __name__ == "__main__":
    sys.exit(main())
