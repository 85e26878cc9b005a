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
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from monitoring.alerts import Message
from monitoring.channels import understood
from monitoring.outbox import Outbox

SECRET = "T0pSecretToken"
OPENED = Message("line-a: check M07", "Since Monday …", "failure", "line-a-2026-W14", "opened")
HELD = Message("line-a: a new model is ready", "…", "warning", "line-a-2026-W14", "challenger")


class Receiver:
    """A webhook receiver: notes what arrives, then waits and answers as told."""

    def __init__(self, port: int = 0) -> None:
        self.titles: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.status, self.delay = 200, 0.0
        self.refuses = ""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.titles.append(json.loads(body)["title"])
                receiver.bodies.append(json.loads(body))
                time.sleep(receiver.delay)
                try:
                    refused = receiver.refuses == receiver.titles[-1]
                    self.send_response(400 if refused else receiver.status)
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


@pytest.fixture(scope="module", autouse=True)
def _apprise_is_there() -> None:
    """Its plugins are loaded at first use, which takes longer than the time-outs of these tests."""
    assert understood("json://127.0.0.1:1/x")


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


def test_down_then_500_then_slow_then_back_each_incident_arrives_once(tmp_path: Path) -> None:
    """Three incidents, told while the receiver goes through all its troubles."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    url = f"json://127.0.0.1:{port}/hooks/{SECRET}"
    told = [Message(f"incident {number}", "...", "failure", f"line-a-{number}", "opened") for number in range(3)]
    outbox = Outbox(tmp_path)

    def round_of(message: Message) -> None:
        outbox.put(message, [url])
        outbox.deliver([url], timeout=0.5)

    round_of(told[0])  # nobody listens
    receiver = Receiver(port)
    try:
        receiver.status = 500
        round_of(told[1])
        refused = len(receiver.bodies)
        assert refused >= 1
        receiver.status, receiver.delay = 200, 1.2  # slower than the time-out
        round_of(told[2])
        until(lambda: outbox.deliver([url], timeout=0.5).waiting == 0)
        receiver.delay = 0.0
        for _ in range(3):
            outbox.deliver([url], timeout=0.5)
        taken = [(body["key"], body["state"]) for body in receiver.bodies[refused:]]
        assert taken == [(message.key, message.state) for message in told]
    finally:
        receiver.stop()


def test_a_receiver_that_hangs_delays_the_end_of_a_process_by_a_set_time(receiver: Receiver, tmp_path: Path) -> None:
    """Nobody can know whether a message that was never answered was taken: it is sent again, with the same id."""
    outbox = Outbox(tmp_path)
    outbox.put(OPENED, [receiver.url])
    receiver.delay = 300.0
    # Apprise's plugins are loaded first: that takes longer than the patience of this test.
    warm = "from monitoring.channels import understood; understood(sys.argv[2])"
    code = f"import sys; {warm}; {DELIVER.replace('argv[1]))', 'argv[1]), patience=3.0)')}"
    hanging = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path), receiver.url],
        stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert hanging.stdout is not None and hanging.stdout.readline() == "1\n"
    began = time.monotonic()
    assert hanging.wait(timeout=60) == 0
    assert time.monotonic() - began < 20, "three seconds, and what ending takes on a busy machine"
    receiver.delay = 0.0
    assert outbox.put(HELD, [receiver.url])
    assert Outbox(tmp_path).deliver([receiver.url]).waiting == 0
    assert Outbox(tmp_path).deliver([receiver.url]).delivered == 0
    assert receiver.titles == [OPENED.subject, OPENED.subject, HELD.subject]
    first, again, _ = receiver.bodies
    assert first["id"] == again["id"]


def test_the_key_stands_apart_from_the_text_for_receivers(receiver: Receiver, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(OPENED, [receiver.url])
    outbox.deliver([receiver.url])
    [body] = receiver.bodies
    assert (body["key"], body["state"], body["type"]) == (OPENED.key, "opened", "failure")
    assert body["message"].endswith(f"[{body['id']}]")
    assert [each["id"] for each in outbox.thread(OPENED.key)] == [body["id"]]


def test_messages_of_one_moment_go_out_in_the_order_in_which_they_were_put(receiver: Receiver, tmp_path: Path) -> None:
    at = datetime(2026, 4, 6, tzinfo=UTC)
    outbox = Outbox(tmp_path)
    for number in range(12):
        outbox.put(Message(str(number), "...", "info", f"k{number}", "opened"), [receiver.url], at=at)
    outbox.deliver([receiver.url])
    assert receiver.titles == [str(number) for number in range(12)]


DELIVER = (
    "import sys; from pathlib import Path; from monitoring.outbox import Outbox; "
    "print(Outbox(Path(sys.argv[1])).deliver([sys.argv[2]], timeout=0.5).waiting, flush=True)"
)


def deliver_elsewhere(folder: Path, url: str) -> subprocess.Popen[str]:
    """One round of deliveries in a process that ends right after it, as a scheduled run does."""
    return subprocess.Popen(
        [sys.executable, "-c", DELIVER, str(folder), url], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )


def test_a_process_that_ends_before_a_slow_answer_does_not_make_the_next_one_send_again(
    receiver: Receiver, tmp_path: Path
) -> None:
    Outbox(tmp_path).put(OPENED, [receiver.url])
    receiver.delay = 2.0
    first = deliver_elsewhere(tmp_path, receiver.url)
    assert first.stdout is not None and first.stdout.readline() == "1\n"  # its round is over, its answer still to come
    second = deliver_elsewhere(tmp_path, receiver.url)
    for process in (first, second):
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert receiver.titles == [OPENED.subject]
    assert Outbox(tmp_path).waiting() == 0


def test_a_process_killed_in_the_middle_of_a_sending_sends_it_again_with_the_same_id(
    receiver: Receiver, tmp_path: Path
) -> None:
    Outbox(tmp_path).put(OPENED, [receiver.url])
    receiver.delay = 5.0
    killed = deliver_elsewhere(tmp_path, receiver.url)
    until(lambda: len(receiver.bodies) == 1, seconds=30)
    killed.kill()
    killed.communicate()
    receiver.delay = 0.0
    assert Outbox(tmp_path).deliver([receiver.url]).delivered == 1
    assert len({body["id"] for body in receiver.bodies}) == 1
    assert len(receiver.bodies) == 2, "nobody can know whether it arrived: at least once, with a key"


def test_a_message_that_waits_for_an_address_that_was_changed_goes_to_the_new_one(
    receiver: Receiver, tmp_path: Path
) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        gone = f"json://127.0.0.1:{probe.getsockname()[1]}/old-token"
    outbox = Outbox(tmp_path)
    outbox.put(OPENED, [gone])
    outbox.put(HELD, [gone, receiver.url])
    assert outbox.deliver([gone, receiver.url]).waiting == 2
    assert receiver.titles == [HELD.subject]
    assert outbox.deliver([receiver.url]).waiting == 0
    assert receiver.titles == [HELD.subject, OPENED.subject], "each once, also the one that had it already"


def test_an_escalation_goes_further_and_other_messages_do_not(receiver: Receiver, tmp_path: Path) -> None:
    superior = Receiver()
    try:
        outbox = Outbox(tmp_path)
        escalated = Message("nobody has answered", "...", "failure", OPENED.key, "escalated")
        outbox.put(OPENED, [receiver.url])
        outbox.put(escalated, [receiver.url], further=[superior.url])
        assert outbox.deliver([receiver.url], further=[superior.url]).delivered == 2
        assert receiver.titles == [OPENED.subject, escalated.subject]
        assert superior.titles == [escalated.subject]
    finally:
        superior.stop()


def test_one_message_that_a_channel_never_takes_does_not_hold_up_the_next(receiver: Receiver, tmp_path: Path) -> None:
    receiver.refuses = OPENED.subject
    outbox = Outbox(tmp_path)
    outbox.put(OPENED, [receiver.url])
    outbox.put(HELD, [receiver.url])
    for _ in range(3):
        outbox.deliver([receiver.url])
    assert HELD.subject in receiver.titles
    assert outbox.waiting() == 1


def test_many_processes_that_put_and_deliver_at_once_double_nothing(receiver: Receiver, tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path; from monitoring.alerts import Message; "
        "from monitoring.outbox import Outbox; outbox = Outbox(Path(sys.argv[1]))\n"
        "for number in range(8):\n"
        "    outbox.put(Message(str(number), '...', 'info', f'k{number}', 'opened'), [sys.argv[2]])\n"
        "    outbox.deliver([sys.argv[2]])"
    )
    command = [sys.executable, "-c", code, str(tmp_path), receiver.url]
    running = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) for _ in range(3)]
    for process in running:
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors.decode()
    Outbox(tmp_path).deliver([receiver.url])
    assert sorted(receiver.titles) == [str(number) for number in range(8)]
    lines = (tmp_path / "alerts.jsonl").read_text().splitlines()
    assert sorted(json.loads(line)["subject"] for line in lines) == [str(number) for number in range(8)]


def test_a_line_that_a_dead_process_left_half_written_spoils_nothing(tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(OPENED)
    [document] = [json.loads(path.read_text()) for path in tmp_path.glob("*.json")]
    (tmp_path / "alerts.jsonl").write_text(json.dumps({"id": document["id"]})[:-1])
    assert outbox.deliver().delivered == 1
    last = (tmp_path / "alerts.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["subject"] == OPENED.subject


def test_a_message_that_was_told_and_cannot_be_read_is_not_told_again(receiver: Receiver, tmp_path: Path) -> None:
    outbox = Outbox(tmp_path)
    outbox.put(OPENED, [receiver.url])
    assert outbox.deliver([receiver.url]).delivered == 1
    [torn] = tmp_path.glob("*.json")
    torn.write_bytes(torn.read_bytes()[:40])
    assert not outbox.put(OPENED, [receiver.url])
    assert outbox.damaged() == {torn: OPENED.subject}
    assert outbox.deliver([receiver.url]).delivered == 0
    assert receiver.titles == [OPENED.subject]
