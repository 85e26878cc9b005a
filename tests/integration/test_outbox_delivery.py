"""Alerts on their way to a real receiver on loopback: down, failing, slow, hanging, and back again."""

from __future__ import annotations

import json
import logging
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from monitoring.alerts import Message
from monitoring.outbox import Outbox

SECRET = "T0pSecretToken"
OPENED = Message("line-a: check M07", "Since Monday …", "failure", "line-a-2026-W14", "opened")
HELD = Message("line-a: a new model is ready", "…", "warning", "line-a-2026-W14", "challenger")


class Receiver:
    """A webhook receiver: notes what arrives, then waits and answers as told."""

    def __init__(self, port: int = 0) -> None:
        self.titles: list[str] = []
        self.status, self.delay = 200, 0.0
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.titles.append(json.loads(body)["title"])
                time.sleep(receiver.delay)
                try:
                    self.send_response(receiver.status)
                    self.end_headers()
                except BrokenPipeError:
                    pass  # the sender has gone

            def log_message(self, format: str, *args: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"json://127.0.0.1:{self.port}/hooks/{SECRET}"

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.stop()


def until(done: Callable[[], bool], seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.05)


def test_a_message_arrives_once_in_order_and_in_the_file(receiver: Receiver, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    assert [outbox.put(message, [receiver.url]) for message in (OPENED, HELD, OPENED)] == [True, True, False]
    assert outbox.deliver([receiver.url]).delivered == 2
    assert outbox.deliver([receiver.url]).delivered == 0
    assert not outbox.put(OPENED, [receiver.url])
    assert receiver.titles == [OPENED.subject, HELD.subject]
    lines = [json.loads(line) for line in (tmp_path / "alerts.jsonl").read_text().splitlines()]
    assert [line["state"] for line in lines] == ["opened", "challenger"]


def test_a_receiver_that_is_down_loses_nothing_and_doubles_nothing(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"json://127.0.0.1:{port}/hooks/{SECRET}"
    outbox = Outbox(tmp_path)
    outbox.put(OPENED, [url])
    outbox.put(HELD, [url])
    assert outbox.deliver([url]).waiting == 2
    assert len((tmp_path / "alerts.jsonl").read_text().splitlines()) == 2
    back = Receiver(port)
    try:
        assert Outbox(tmp_path).deliver([url]).delivered == 2
        assert Outbox(tmp_path).deliver([url]).waiting == 0
        assert back.titles == [OPENED.subject, HELD.subject]
    finally:
        back.stop()


def test_an_answer_500_is_tried_again(receiver: Receiver, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(OPENED, [receiver.url])
    receiver.status = 500
    assert outbox.deliver([receiver.url]).waiting == 1
    receiver.status = 200
    assert outbox.deliver([receiver.url]).delivered == 1
    assert outbox.waiting() == 0


def test_a_receiver_slower_than_the_time_out_gets_it_once(receiver: Receiver, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(OPENED, [receiver.url])
    receiver.delay = 2.0
    began = time.monotonic()
    assert outbox.deliver([receiver.url], timeout=0.5).waiting == 1
    assert time.monotonic() - began < 1.5
    until(lambda: outbox.deliver([receiver.url], timeout=0.5).waiting == 0)
    assert receiver.titles == [OPENED.subject]


def test_an_answer_within_the_time_out_counts_however_late(receiver: Receiver, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(OPENED, [receiver.url])
    receiver.delay = 4.5  # Apprise itself would give up after 4 s
    assert outbox.deliver([receiver.url], timeout=8).delivered == 1
    assert receiver.titles == [OPENED.subject]


def test_one_channel_that_hangs_does_not_keep_the_others_waiting(receiver: Receiver, tmp_path: Path) -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        hanging = f"json://127.0.0.1:{silent.getsockname()[1]}/x"
        outbox = Outbox(tmp_path)
        outbox.put(OPENED, [hanging, receiver.url])
        began = time.monotonic()
        outbox.deliver([hanging, receiver.url], timeout=0.5)
        assert time.monotonic() - began < 2.0
        assert receiver.titles == [OPENED.subject]
        assert outbox.waiting() == 1


def test_two_processes_at_once_send_it_once(receiver: Receiver, tmp_path: Path) -> None:
    Outbox(tmp_path).put(OPENED, [receiver.url])
    receiver.delay = 2.0
    code = (
        "import sys; from pathlib import Path; from monitoring.outbox import Outbox; "
        "Outbox(Path(sys.argv[1])).deliver([sys.argv[2]], timeout=8)"
    )
    command = [sys.executable, "-c", code, str(tmp_path), receiver.url]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(2)]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    assert receiver.titles == [OPENED.subject]
    assert Outbox(tmp_path).waiting() == 0


def test_no_secret_is_written_or_logged(
    receiver: Receiver, tmp_path: Path, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    outbox = Outbox(tmp_path)
    outbox.put(OPENED, [receiver.url])
    receiver.status = 500
    outbox.deliver([receiver.url])
    written = "".join(path.read_text() for path in tmp_path.rglob("*") if path.is_file())
    assert "line-a" in written
    for text in (written, *capfd.readouterr(), caplog.text):
        assert SECRET not in text


def test_an_address_that_apprise_does_not_know_never_counts_as_sent(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(OPENED, ["nonsense://somewhere"])
    assert outbox.deliver(["nonsense://somewhere"]).waiting == 1
