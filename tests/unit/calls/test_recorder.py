"""Do records reach their consumers without a call that waits for them?"""

from __future__ import annotations

import asyncio
import io
import json
import logging
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from toolguard.calls.recorder import Recorder, Records
from toolguard.telemetry import DecisionRecord, JSONLines

SECRET = b"the secret of every replica"


def record(operation: str = "add", **facts: object) -> DecisionRecord:
    return DecisionRecord(1.0, "https://mcp.test/mcp", "served", operation=operation, **facts)  # type: ignore[arg-type]


def test_every_record_reaches_every_consumer_in_its_order() -> None:
    first: list[DecisionRecord] = []
    second: list[DecisionRecord] = []

    async def later(each: DecisionRecord) -> None:
        await asyncio.sleep(0)
        second.append(each)

    recorder = Recorder(Records(first.append, later), SECRET)
    sent = [record(str(number)) for number in range(100)]
    recorder.put(sent)

    assert recorder.flush()
    assert (first, second, recorder.lost) == (sent, sent, 0)


def test_a_consumer_that_stands_still_delays_nobody_and_its_losses_are_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    entered, go_on = threading.Event(), threading.Event()
    got: list[DecisionRecord] = []

    def slow(each: DecisionRecord) -> None:
        entered.set()
        go_on.wait(60)
        got.append(each)

    recorder = Recorder(Records(slow, queue=3), SECRET)
    recorder.put([record("0")])
    assert entered.wait(60)
    recorder.put(record(str(number)) for number in range(1, 11))

    assert recorder.lost == 7
    go_on.set()
    assert recorder.flush()
    recorder.close()
    assert [each.operation for each in got] == ["0", "1", "2", "3"]
    assert "7 decision records were lost" in caplog.text


def test_what_a_consumer_does_not_take_before_the_end_is_lost(
    caplog: pytest.LogCaptureFixture,
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def slow(_: DecisionRecord) -> None:
        entered.set()
        go_on.wait(60)

    recorder = Recorder(Records(slow), SECRET)
    recorder.put([record("0")])
    assert entered.wait(60)
    recorder.put([record("1"), record("2")])

    assert repr(recorder) == "<Recorder: 2 of 10000 waiting, 0 lost>"
    assert not recorder.flush(0)
    recorder.close(0)
    assert recorder.lost == 2
    assert "2 decision records were lost" in caplog.text
    go_on.set()
    assert recorder.flush()


def test_a_consumer_that_fails_loses_its_records_and_no_other_consumers(
    caplog: pytest.LogCaptureFixture,
) -> None:
    got: list[DecisionRecord] = []

    def failing(_: DecisionRecord) -> None:
        raise RuntimeError("its text may hold a secret")

    async def failing_later(_: DecisionRecord) -> None:
        raise RuntimeError("its text may hold a secret")

    recorder = Recorder(Records(failing, failing_later, got.append), SECRET)
    recorder.put([record(), record()])

    assert recorder.flush()
    assert (len(got), recorder.lost) == (2, 4)
    recorder.close()
    assert "decision records were lost" in caplog.text
    assert "secret" not in caplog.text


@pytest.mark.parametrize("fault", [asyncio.CancelledError, SystemExit])
def test_no_fault_of_a_consumer_ends_the_handing_out(fault: type[BaseException]) -> None:
    got: list[DecisionRecord] = []

    async def failing(_: DecisionRecord) -> None:
        raise fault

    recorder = Recorder(Records(failing, got.append), SECRET)
    recorder.put([record(), record()])

    assert recorder.flush()
    assert (len(got), recorder.lost) == (2, 2)


def test_a_log_that_fails_costs_no_consumer_a_record(caplog: pytest.LogCaptureFixture) -> None:
    class Full(logging.Handler):
        def emit(self, _: logging.LogRecord) -> None:
            raise OSError("no space left")

    caplog.set_level(logging.INFO, "toolguard.decisions")
    got: list[DecisionRecord] = []
    recorder = Recorder(Records(got.append), SECRET)
    log, handler = logging.getLogger("toolguard.decisions"), Full()
    log.addHandler(handler)
    try:
        recorder.put([record(), record()])
        assert recorder.flush()
    finally:
        log.removeHandler(handler)

    assert (len(got), recorder.lost) == (2, 2)


def test_without_a_consumer_records_are_made_if_the_log_is_heard(
    caplog: pytest.LogCaptureFixture,
) -> None:
    recorder = Recorder(Records(), SECRET)
    caplog.set_level(logging.WARNING, "toolguard.decisions")
    assert not recorder.wanted()

    caplog.set_level(logging.INFO, "toolguard.decisions")
    assert recorder.wanted()
    recorder.put([record(issuer="https://issuer.test", subject="alice", transport="stdio")])
    assert recorder.flush()
    (line,) = [each.getMessage() for each in caplog.records if each.name == "toolguard.decisions"]
    assert line == (
        "served a request for alice of https://issuer.test over stdio, request None, 0.0 ms"
    )


def test_a_consumer_that_listens_for_a_while_gets_records_of_that_time() -> None:
    got: list[DecisionRecord] = []
    recorder = Recorder(Records(), SECRET)
    remove = recorder.listen(got.append)
    assert recorder.wanted()
    recorder.put([record()])
    assert recorder.flush()
    remove()

    assert not recorder.wanted() or logging.getLogger("toolguard.decisions").isEnabledFor(20)
    assert len(got) == 1


@given(st.text(), st.text(), st.text(), st.text())
def test_a_pseudonym_is_the_same_for_the_same_user_only(
    issuer: str, user: str, another_issuer: str, another_user: str
) -> None:
    hashed = Records(subjects="hashed")
    first, replica = Recorder(hashed, SECRET), Recorder(hashed, SECRET)
    stranger = Recorder(hashed, b"another secret altogether")

    name = first.name_of(issuer, user)
    assert name == replica.name_of(issuer, user) != stranger.name_of(issuer, user)
    is_same = (issuer, user) == (another_issuer, another_user)
    assert (first.name_of(another_issuer, another_user) == name) is is_same
    assert Recorder(Records(), SECRET).name_of(issuer, user) == user


def test_what_is_queued_when_the_process_ends_is_handed_out() -> None:
    code = (
        "from toolguard.calls.recorder import Recorder, Records\n"
        "from toolguard.telemetry import DecisionRecord\n"
        "recorder = Recorder(Records(lambda each: print(each.operation, flush=True)), b'secret')\n"
        "recorder.put(DecisionRecord(0, '', 'served', operation=str(n)) for n in range(50))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )

    assert done.stdout.split() == [str(number) for number in range(50)]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_process_hands_out_its_own_records_only() -> None:
    code = (
        "import os, threading\n"
        "from toolguard.calls.recorder import Recorder, Records\n"
        "from toolguard.telemetry import DecisionRecord\n"
        "def told(each): print(each.operation, flush=True)\n"
        "recorder = Recorder(Records(told), b'secret')\n"
        "recorder._starting.acquire()\n"
        "recorder._queue.append(DecisionRecord(0, '', 'served', operation='parents'))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    recorder.put([DecisionRecord(0, '', 'served', operation='childs')])\n"
        "    os._exit(0 if recorder.flush() else 1)\n"
        "assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0\n"
        "recorder._starting.release()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )

    assert done.stdout.split() == ["childs", "parents"]


def test_json_lines_go_to_a_stream_or_a_logger(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "audit")
    stream = io.StringIO()
    told = record("add\n", request_id=7, missing_scopes=("write",))
    JSONLines(stream)(told)
    JSONLines(logging.getLogger("audit"))(told)

    (line,) = stream.getvalue().splitlines()
    assert [each.getMessage() for each in caplog.records] == [line]
    assert json.loads(line) == {
        "time": 1.0,
        "server": "https://mcp.test/mcp",
        "verdict": "served",
        "transport": "http",
        "request_id": 7,
        "operation": "add\n",
        "missing_scopes": ["write"],
        "duration": 0.0,
    }


def test_json_lines_are_appended_to_a_file_for_its_owner_only(tmp_path: Path) -> None:
    file = tmp_path / "decisions.jsonl"
    lines = JSONLines(file)
    assert file.read_bytes() == b""
    assert file.stat().st_mode & 0o777 == 0o600

    lines(record("one\nline"))
    JSONLines(str(file))(record("two"))
    file.rename(tmp_path / "moved")
    lines(record("three"))

    moved = (tmp_path / "moved").read_text().splitlines()
    assert [json.loads(each)["operation"] for each in moved] == ["one\nline", "two"]
    assert json.loads(file.read_text())["operation"] == "three"
    assert repr(lines) == f"JSONLines({str(file)!r})"


def test_a_file_stays_where_it_was_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    lines = JSONLines("decisions.jsonl")
    monkeypatch.chdir("/")

    lines(record())

    assert (tmp_path / "decisions.jsonl").read_text().count("\n") == 1


def test_a_file_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        JSONLines(tmp_path / "none" / "decisions.jsonl")


def test_a_file_that_can_no_longer_be_written_loses_records_and_no_calls(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "gone"
    folder.mkdir()
    recorder = Recorder(Records(JSONLines(folder / "decisions.jsonl")), SECRET)
    (folder / "decisions.jsonl").unlink()
    folder.rmdir()

    recorder.put([record()])

    assert recorder.flush()
    recorder.close()
    assert recorder.lost == 1
    assert "1 decision records were lost" in caplog.text


@pytest.mark.parametrize(
    ("kind", "message", "make"),
    [
        (TypeError, "on_decision takes functions of a record, not 'log'", lambda: Records("log")),  # type: ignore[arg-type]
        (ValueError, "queue=0: at least one record has to wait", lambda: Records(queue=0)),
        (
            ValueError,
            "subjects='none': write one of 'clear', 'hashed'",
            lambda: Records(subjects="none"),  # type: ignore[arg-type]
        ),
    ],
)
def test_a_setting_of_records_that_there_is_not_is_refused(
    kind: type[Exception], message: str, make: Callable[[], object]
) -> None:
    with pytest.raises(kind, match=f"^{re.escape(message)}$"):
        make()
