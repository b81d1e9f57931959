"""Commits to a gallery: seconds of each and bytes left by them, in a folder, a Lance table and on object storage.

    python benchmarks/commit_rate.py [--commits 20] [--photos 1000] [--writers 1 4]

Each writer is a process of its own that commits ``--commits`` times ``--photos`` photos of its own, and once before
that; nothing is embedded. Object storage is moto's server on loopback, in memory: no network, and a server in Python,
so that real ones differ both ways. A gallery in a folder has one writer at a time; the others wait.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from command_line import say_where

DIMENSION = 256


def commit(place: str, writer: int, commits: int, photos: int) -> list[tuple[float, float]]:
    """Begin and end of each commit of one writer, the first one, which loads the libraries, left out."""
    from rasr.gallery.database import EncoderId
    from rasr.gallery.photo import Photo
    from rasr.gallery.stores import open_store

    rng, times = np.random.default_rng(writer), []
    store = open_store(place, lock_timeout=600)
    for number in range(commits + 1):
        vectors = rng.standard_normal((photos, DIMENSION), dtype=np.float32)
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        first = (writer * (commits + 1) + number) * photos
        rows = [
            (Photo(f"{n:032x}", Path(f"/photos/{n:08d}.jpg"), 100_000, 1, 640, 480, n), vector)
            for n, vector in enumerate(vectors, first)
        ]
        begun = time.time()
        with store.writing(EncoderId("drawn", "1", DIMENSION, "drawn/1")) as opened:
            opened.commit(rows)
        times.append((begun, time.time()))
    return times[1:]


@contextmanager
def bucket() -> Iterator[str]:
    """A bucket of a server of one's own, by which the environment is set."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    words = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    settings = {"ACCESS_KEY_ID": "x", "SECRET_ACCESS_KEY": "x", "REGION": "us-east-1", "ALLOW_HTTP": "true"}
    os.environ |= {f"AWS_{name}": value for name, value in settings.items()}
    os.environ["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{port}"
    try:
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
                signed = "AWS4-HMAC-SHA256 Credential=x/1/us-east-1/s3/aws4_request"
                connection.request("PUT", "/commits", headers={"Authorization": signed})
                connection.getresponse().read()
                break
            except OSError:
                if server.poll() is not None:
                    raise SystemExit("moto's server did not start: pip install 'moto[server]>=5.2.5'") from None
                time.sleep(0.1)
        yield "s3://commits"
    finally:
        server.terminate()
        server.wait(30)


def main() -> int:
    """Commit to each kind with each number of writers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--commits", type=int, default=20)
    parser.add_argument("--photos", type=int, default=1000)
    parser.add_argument("--writers", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        place, writer = options.one
        print(json.dumps(commit(place, int(writer), options.commits, options.photos)))
        return 0
    say_where(packages=("lancedb", "obstore", "moto"))
    from rasr.gallery import Gallery

    print(f"{options.commits} commits of {options.photos} photos × {DIMENSION} by each writer")
    with tempfile.TemporaryDirectory() as folder, bucket() as far:
        for kind, top in (("folder", folder), ("lance, folder", f"lance://{folder}"), ("lance, s3", far)):
            for writers in options.writers:
                place = f"{top}/{kind.replace(', ', '-')}-{writers}"
                sizes = (f"--commits={options.commits}", f"--photos={options.photos}")
                running = [
                    subprocess.Popen(
                        [sys.executable, __file__, "--one", place, str(writer), *sizes], stdout=subprocess.PIPE
                    )
                    for writer in range(writers)
                ]
                told = [json.loads(one.communicate()[0]) for one in running]
                times = np.array(told)
                seconds = times[..., 1] - times[..., 0]
                whole = times[..., 1].max() - times[..., 0].min()
                info = Gallery(place).info()
                wanted = writers * (options.commits + 1) * options.photos
                if info.photos != wanted:
                    raise SystemExit(f"{place} has {info.photos} photos, not {wanted}")
                median, late = np.median(seconds), np.percentile(seconds, 95)
                last = np.median(seconds[:, -max(1, options.commits // 10) :])
                print(
                    f"{kind:14} {writers} writer(s): {median * 1e3:6.0f} ms a commit, p95 {late * 1e3:6.0f}, last tenth"
                    f" {last * 1e3:6.0f}; {writers * options.commits / whole * 60:5.0f} a minute; "
                    f"{info.bytes_on_disk / info.photos:5.0f} bytes a photo; load {os.getloadavg()[0]:.1f}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
