"""``rasr serve``: restoration for everybody who has a browser, on this machine or in one's own network."""

from pathlib import Path
from typing import Any

import click

from rasr.cli.arguments import PRESET, build_options, device_option, option_group
from rasr.cli.console import examples, print_data, say
from rasr.cluster import ClusterOptions, ReplicaOptions
from rasr.errors import ExtraMissing, UsageError


@click.command(
    epilog=examples(
        "rasr serve -g ~/Photos                            then open http://127.0.0.1:8000",
        "rasr serve -g s3://museum/galleries/zoo           a gallery on object storage (docs/scale.md)",
        "rasr serve --cluster 10.0.0.5:6379 --replicas 1-8 --actor-gpus 0.5",
        "rasr serve --data /srv/rasr --token-file /etc/rasr.token --allow-host photos.museum.example",
    )
)
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", default=8000, show_default=True, help="0: any that is free.")
@click.option("--data", type=click.Path(path_type=Path), help="Folder of queue, uploads, results.  [default: by user]")
@click.option(
    "-g", "--gallery", "galleries", multiple=True, type=click.Path(),
    help="Gallery, its address, or folder of photos, to offer; only read. May be repeated.",
)  # fmt: skip
@click.option("--token-file", type=click.Path(path_type=Path), help="What clients must show.  [default: $RASR_TOKEN]")
@click.option("--allow-host", "hosts", multiple=True, help="Name that clients call it by; may be repeated.")
@click.option("--queue", default=200, show_default=True, help="Pictures that may wait.")
@click.option("--keep-days", default=30.0, show_default=True, help="Age at which results go.")
@click.option("--keep-bytes", default=20 * 2**30, show_default=True, help="Bytes of results that are kept.")
@click.option("--max-bytes", default=100 * 2**20, show_default=True, help="Largest upload.")
@click.option("--max-megapixels", default=25.0, show_default=True, help="Largest picture taken.")
@click.option("--grace", default=20.0, show_default=True, help="Seconds a stop waits for the running picture.")
@click.option("--hang", default=900.0, show_default=True, help="Seconds without a sign of life that end the worker.")
@click.option("--preset", type=PRESET, help="Generator used unless a client asks for another.  [default: mini]")
@device_option("auto", "Where the generator runs: auto, cpu, cuda, cuda:N, mps.")
@option_group(ClusterOptions, ReplicaOptions)
def command(
    host: str,
    port: int,
    data: Path | None,
    galleries: tuple[str, ...],
    token_file: Path | None,
    hosts: tuple[str, ...],
    queue: int,
    keep_days: float,
    keep_bytes: int,
    max_bytes: int,
    max_megapixels: float,
    grace: float,
    hang: float,
    preset: str | None,
    device: str,
    **options: Any,
) -> None:
    """Serve restoration over HTTP, with a page for the browser. Ctrl-C ends it.

    Prints the address. What is sent and made stays in the data folder for --keep-days. Without --token-file anybody who
    reaches the address can use it, so it listens on this machine alone unless --host says otherwise. With --cluster
    several pictures are restored at once, by processes that Ray Serve starts as work comes.
    """
    cluster, replicas = build_options(ClusterOptions, options), build_options(ReplicaOptions, options)
    if cluster.cluster is None and replicas != ReplicaOptions():
        raise UsageError("--replicas is for processes on a cluster: name one with --cluster.")
    say("Starting …")
    try:
        from rasr.service.server import serve
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] in {"fastapi", "uvicorn", "prometheus_client", "starlette"}:
            raise ExtraMissing("rasr serve", "service") from error
        raise
    from rasr.files import home
    from rasr.generator import DEFAULT_PRESET
    from rasr.service.config import ServiceConfig, read_token

    config = ServiceConfig(
        data=data or home() / "service", host=host, port=port, galleries=galleries, token=read_token(token_file),
        hosts=hosts, queue=queue, keep_days=keep_days, keep_bytes=keep_bytes, max_bytes=max_bytes,
        max_pixels=round(max_megapixels * 1e6), grace=grace, hang=hang,
        preset=preset or DEFAULT_PRESET, device=device,
    )  # fmt: skip

    def started(address: str) -> None:
        print_data(address)
        say("Open it in a browser. Ctrl-C ends the service.")

    if cluster.cluster is None:
        serve(config, started)
    else:
        from rasr.service.deployment import serve_on_cluster

        serve_on_cluster(config, cluster, replicas, started)
