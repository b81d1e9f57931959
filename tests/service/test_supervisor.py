"""What survives: kills of the worker, of decoders and of the service, cancelling, a full queue, and an orderly stop."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable

import httpx2
import pytest

from tests.service.conftest import Served, picture

WORKER, DECODER = "rasr.service.worker", "rasr.service.decode"


def slow(served: Served, name: str = "slow.png") -> str:
    """A job that takes some seconds: 16 megapixels of result."""
    answer = served.submit(picture(1000, 1000), name, scale="4")
    assert answer.status_code == 202, answer.text
    job: str = answer.json()["id"]
    return job


def restoring(served: Served, job: str) -> None:
    """Wait until the worker is in the middle of a job."""

    def begun() -> bool:
        told = served.client.get(f"/jobs/{job}").json()
        assert told["state"] in {"queued", "running"}, told
        return told["state"] == "running"

    served.until(begun)


def kill_worker(served: Served) -> None:
    """SIGKILL the worker in a job: that one fails and says so, the waiting one is done, and it is quickly back."""
    first, second = slow(served), served.submit(picture(), scale="2").json()["id"]
    restoring(served, first)
    (worker,) = served.children(WORKER)
    os.kill(worker, signal.SIGKILL)
    failed = served.ended(first)
    assert failed["state"] == "failed"
    assert failed["error"].startswith("slow.png: the process that restored it was ended by signal 9")
    assert served.ended(second)["state"] == "done"
    assert served.client.get("/health/ready").status_code == 200
    for job in (first, second):
        assert served.client.delete(f"/jobs/{job}").status_code == 204


def test_a_killed_worker_costs_the_job_it_had(start: Callable[..., Served]) -> None:
    served = start()
    kill_worker(served)
    assert "rasr_worker_restarts_total 1.0" in served.client.get("/metrics").text
    assert served.stop() == 0


def test_decoders_that_were_killed_at_rest_cost_no_request(start: Callable[..., Served]) -> None:
    served = start()
    decoders = served.children(DECODER)
    for decoder in decoders:
        os.kill(decoder, signal.SIGKILL)
    served.until(lambda: not served.children(DECODER))
    assert [served.submit(picture(), scale="1").status_code for _ in range(4)] == [202] * 4
    assert not set(served.children(DECODER)) & set(decoders)
    assert "rasr_decoder_deaths_total 2.0" in served.client.get("/metrics").text
    assert served.stop() == 0


def test_a_running_job_is_cancelled_between_tiles(start: Callable[..., Served]) -> None:
    served = start()
    first, second = slow(served), slow(served)
    restoring(served, first)
    assert served.client.delete(f"/jobs/{second}").status_code == 204
    assert served.client.get(f"/jobs/{second}").json()["state"] == "cancelled"
    (worker,) = served.children(WORKER)
    assert served.client.delete(f"/jobs/{first}").status_code == 204
    assert served.ended(first)["state"] == "cancelled"
    assert served.children(WORKER) == [worker]
    assert served.client.get(f"/jobs/{first}/result").status_code == 409


def test_a_full_queue_says_when_to_come_again(start: Callable[..., Served]) -> None:
    served = start("--queue", 1)
    first = slow(served)
    restoring(served, first)
    second = served.submit(picture(), headers={"Idempotency-Key": "same"})
    refused = served.submit(picture())
    assert (second.status_code, refused.status_code) == (202, 429)
    assert second.json()["position"] == 1
    assert 1 <= int(refused.headers["retry-after"]) <= 3600
    again = served.submit(picture(), headers={"Idempotency-Key": "same"})
    assert (again.status_code, again.json()["id"]) == (202, second.json()["id"])
    assert len(list((served.data / "jobs").iterdir())) == 2
    url = httpx2.URL(served.url)
    with socket.create_connection((url.host, url.port), timeout=10) as line:  # answered while the body is to be sent
        line.sendall(b"POST /jobs HTTP/1.1\r\nHost: localhost\r\nContent-Length: 50000000\r\n"
                     b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x")  # fmt: skip
        assert b" 429 " in line.recv(200)
    large = served.submit(picture() + bytes(40 << 20))  # a client that sends all the same reads the answer
    assert (large.status_code, large.json()["error"]["code"]) == (429, "queue")
    served.client.delete(f"/jobs/{first}")


def test_a_hanging_worker_is_ended_and_its_job_says_so(start: Callable[..., Served]) -> None:
    served = start("--hang", 4)
    first, second = slow(served), served.submit(picture(), scale="2").json()["id"]
    restoring(served, first)
    (worker,) = served.children(WORKER)
    os.kill(worker, signal.SIGSTOP)
    failed = served.ended(first)
    assert (failed["state"], failed["error"]) == (
        "failed",
        "slow.png: the process that restored it showed no sign of life for 4 seconds and was ended. Send it again.",
    )
    assert served.ended(second)["state"] == "done"
    assert served.children(WORKER) != [worker]
    assert not os.path.exists(f"/proc/{worker}")  # noqa: PTH110
    assert served.stop() == 0


def test_an_idle_worker_is_not_taken_for_a_hanging_one(start: Callable[..., Served]) -> None:
    served = start("--hang", 1.5)
    (worker,) = served.children(WORKER)
    time.sleep(3)  # longer than it may be silent at work
    assert served.ended(served.submit(picture(), scale="1").json()["id"])["state"] == "done"
    assert served.children(WORKER) == [worker]
    assert "rasr_worker_restarts_total 0.0" in served.client.get("/metrics").text


def test_a_stopped_service_goes_on_with_what_it_had(start: Callable[..., Served]) -> None:
    served = start("--grace", 0)
    first, second = slow(served), served.submit(picture()).json()["id"]
    restoring(served, first)
    assert served.stop() == 0
    served.start()
    assert served.ended(first)["state"] == "done"
    assert served.ended(second)["state"] == "done"
    assert served.stop() == 0


def kill_service(served: Served) -> None:
    first, second = slow(served), served.submit(picture(), scale="2").json()["id"]
    restoring(served, first)
    children = served.crash()
    failed = served.client.get(f"/jobs/{first}").json()
    assert (failed["state"], failed["error"]) == (
        "failed", "The service was stopped while this picture was restored. Send it again.",
    )  # fmt: skip
    assert served.ended(second)["state"] == "done"
    assert len(served.client.get("/jobs").json()["jobs"]) == 2
    served.until(lambda: not any(os.path.exists(f"/proc/{child}") for child in children), 10)  # noqa: PTH110
    for job in (first, second):
        served.client.delete(f"/jobs/{job}")


def test_a_killed_service_loses_the_running_job_alone(start: Callable[..., Served]) -> None:
    served = start()
    kill_service(served)
    assert served.stop() == 0


def test_streams_end_when_the_service_stops(start: Callable[..., Served]) -> None:
    served = start("--grace", 0)
    job = slow(served)
    served.submit(picture())
    ended: list[str] = []

    def follow() -> None:
        with httpx2.Client(base_url=served.url, timeout=60) as client, client.stream("GET", f"/jobs/{job}/events") as s:
            ended.append("".join(s.iter_text()))  # a stream that is cut would raise

    threads = [threading.Thread(target=follow) for _ in range(10)]
    for thread in threads:
        thread.start()
    served.until(lambda: "rasr_streams 10.0" in served.client.get("/metrics").text)
    assert served.stop() == 0
    for thread in threads:
        thread.join(30)
    assert len(ended) == 10
    assert "Traceback" not in served.log.read_text()


def test_two_services_do_not_share_a_folder(start: Callable[..., Served], run_rasr: Callable[..., object]) -> None:
    served = start()
    done = run_rasr("serve", "--port", 0, "--data", served.data)
    assert (done.returncode, "another service uses this folder" in done.stderr) == (2, True)  # type: ignore[attr-defined]


@pytest.mark.large
def test_kill_storm(start: Callable[..., Served]) -> None:
    """Worker × 20, decoders × 20, service × 5."""
    served = start()
    for _ in range(20):
        kill_worker(served)
    told = served.client.get("/metrics").text
    assert 'rasr_jobs_ended_total{state="done"} 20.0' in told, "each of those that waited was done once"
    assert 'rasr_jobs_ended_total{state="failed"} 20.0' in told
    for _ in range(20):
        os.kill(served.children(DECODER)[0], signal.SIGKILL)
        codes = [served.submit(picture(), scale="1").status_code]
        while len(served.children(DECODER)) < 2:  # replaced when it is its thread's turn
            codes.append(served.submit(picture(), scale="1").status_code)
        assert codes.count(422) <= 1, codes  # the one for which the process had been chosen already
        assert set(codes) <= {202, 422}
    for _ in range(5):
        for job in served.client.get("/jobs", params={"limit": 200}).json()["jobs"]:
            served.ended(job["id"])
            served.client.delete(f"/jobs/{job['id']}")
        kill_service(served)
    assert served.stop() == 0
