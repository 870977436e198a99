"""Is everything overheard that a process says, and nobody disturbed by it?"""

from __future__ import annotations

import io
import logging
import sys
import warnings
from collections.abc import Iterator
from contextlib import ExitStack
from types import ModuleType
from typing import Any

import pytest

from toolguard.testing.leaks.capture import Recording, recording, records_spans

log = logging.getLogger("tests.overheard")


@pytest.fixture
def console() -> Iterator[io.StringIO]:
    """Write what the logger says from WARNING on, as an application's console does."""
    handler = logging.StreamHandler(io.StringIO())
    handler.setFormatter(logging.Formatter("%(levelname)s %(message)s"))
    log.addHandler(handler)
    log.setLevel(logging.WARNING)
    yield handler.stream
    log.removeHandler(handler)
    log.setLevel(logging.NOTSET)


def logs(heard: Recording) -> list[tuple[str, str]]:
    return [(each.where, each.text) for each in heard.take() if each.channel == "log"]


def test_all_log_levels_are_captured_and_the_console_is_unchanged(
    console: io.StringIO,
) -> None:
    with recording() as heard:
        log.debug("a %s", "detail")
        log.warning("a %s", "warning")
        logging.getLogger("tests.overheard.child").info("a child")
        taken = logs(heard)
    log.debug("afterwards")

    assert taken == [
        ("tests.overheard (DEBUG)", "a detail"),
        ("tests.overheard (WARNING)", "a warning"),
        ("tests.overheard.child (INFO)", "a child"),
    ]
    assert console.getvalue() == "WARNING a warning\n"


def test_what_nobody_would_have_heard_is_overheard(console: io.StringIO) -> None:
    log.disabled = True
    logging.disable(logging.ERROR)
    try:
        with recording() as heard:
            log.error("turned off")
            logging.getLogger("tests.another").error("turned off, too")
            taken = logs(heard)
        assert log.disabled
        assert logging.root.manager.disable == logging.ERROR
    finally:
        logging.disable(logging.NOTSET)
        log.disabled = False

    assert [text for _, text in taken] == ["turned off", "turned off, too"]
    assert console.getvalue() == ""


def test_what_is_added_to_a_record_is_overheard() -> None:
    with recording() as heard:
        log.info("a call", extra={"headers": {"authorization": "Bearer xyz"}})
        taken = logs(heard)

    assert taken == [
        ("tests.overheard (INFO)", "a call"),
        ("tests.overheard (INFO)", "{'headers': {'authorization': 'Bearer xyz'}}"),
    ]


def test_tracebacks_and_stacks_are_overheard() -> None:
    with recording() as heard:
        try:
            int("xyz")
        except ValueError:
            log.exception("no number", stack_info=True)
        ((_, text),) = logs(heard)

    assert "invalid literal for int() with base 10: 'xyz'" in text
    assert "Stack (most recent call last)" in text


def test_a_record_that_cannot_be_formatted_disturbs_nobody(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class Broken:
        def __repr__(self) -> str:
            raise RuntimeError("broken")

    with recording() as heard:
        log.debug("%r", Broken())
        log.debug("%d", "x")
        log.debug("a call", extra={"broken": Broken()})
        taken = logs(heard)

    assert taken == [("tests.overheard (DEBUG)", "a call")]
    assert capsys.readouterr() == ("", "")


def test_what_is_written_in_pieces_is_overheard_as_a_whole_and_written(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with recording() as heard:
        sys.stdout.writelines(["to", "ken"])
        sys.stdout.flush()
        sys.stderr.write("err")
        said = [(each.channel, each.text) for each in heard.take()]

    assert said == [("stdout", "token"), ("stderr", "err")]
    assert capsys.readouterr() == ("token", "err")


def test_a_program_without_a_console_is_overheard(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)

    with recording() as heard:
        sys.stderr.write("err")
        said = [(each.channel, each.text) for each in heard.take()]

    assert said == [("stderr", "err")]
    assert sys.stdout is None


def test_warnings_are_overheard_and_shown() -> None:
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with recording() as heard:
            warnings.warn("it is old", DeprecationWarning, stacklevel=1)
            said = [(each.channel, each.where, each.text) for each in heard.take()]
        warnings.warn("afterwards", UserWarning, stacklevel=1)

    assert said == [("warning", "DeprecationWarning", "it is old")]
    assert [str(each.message) for each in shown] == ["it is old", "afterwards"]


def test_an_exception_on_its_way_is_overheard() -> None:
    heard = Recording()

    def overheard(error: Exception | None) -> None:
        with ExitStack() as stack:
            stack.push(heard.add_exception)
            if error is not None:
                raise error

    overheard(None)
    with pytest.raises(RuntimeError):
        overheard(RuntimeError("xyz"))
    (said,) = heard.take()

    assert (said.channel, said.where) == ("exception", "RuntimeError")
    assert "xyz" in said.text
    assert "xyz" not in repr(said)


def test_recordings_may_overlap_in_any_order() -> None:
    before = logging.getLogRecordFactory(), sys.stdout, warnings.showwarning
    first, second = recording(), recording()
    one = first.__enter__()
    other = second.__enter__()
    log.debug("both")
    first.__exit__(None, None, None)
    log.debug("the second")
    second.__exit__(None, None, None)
    log.debug("nobody")

    assert [text for _, text in logs(one)] == ["both"]
    assert [text for _, text in logs(other)] == ["both", "the second"]
    assert (logging.getLogRecordFactory(), sys.stdout, warnings.showwarning) == before


def test_who_takes_over_meanwhile_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    make, out = logging.getLogRecordFactory(), io.StringIO()
    monkeypatch.setattr(sys, "stdout", sys.stdout)
    monkeypatch.setattr(log, "level", log.level)

    def own(*args: Any, **kwargs: Any) -> logging.LogRecord:
        return make(*args, **kwargs)

    with recording():
        logging.setLogRecordFactory(own)
        sys.stdout = out
        log.setLevel(logging.ERROR)
    try:
        assert logging.getLogRecordFactory() is own
        assert sys.stdout is out
        assert log.level == logging.ERROR
    finally:
        logging.setLogRecordFactory(make)
        log.setLevel(logging.NOTSET)


class Span:
    name = "tools/call"

    def to_json(self, indent: int | None) -> str:
        return f'{{"attributes": {{"token": "xyz"}}, "indent": {indent}}}'


class Provider:
    """Stands for the SDK's provider: it keeps its processors for ever."""

    def __init__(self) -> None:
        self.processors: list[Any] = []

    def add_span_processor(self, processor: Any) -> None:
        self.processors.append(processor)

    def record(self, span: Span) -> None:
        for processor in self.processors:
            processor.on_start(span, parent_context=None)
            processor._on_ending(span)
            processor.on_end(span)
            assert processor.force_flush(1_000)
            processor.shutdown()


def providing(monkeypatch: pytest.MonkeyPatch, provider: object) -> None:
    trace: Any = ModuleType("opentelemetry.trace")
    trace.get_tracer_provider = lambda: provider
    monkeypatch.setitem(sys.modules, "opentelemetry.trace", trace)


def test_spans_are_overheard_by_one_processor_however_often(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    provider = Provider()
    providing(monkeypatch, provider)

    provider.record(Span())
    for _ in range(2):
        with recording() as heard:
            assert records_spans()
            provider.record(Span())
            (said,) = heard.take()
        provider.record(Span())
        assert (said.channel, said.where) == ("span", "tools/call")
        assert "xyz" in said.text
        assert heard.take() == []

    assert len(provider.processors) == 1


def test_where_no_spans_are_recorded_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    providing(monkeypatch, object())
    with recording():
        assert not records_spans()
    monkeypatch.delitem(sys.modules, "opentelemetry.trace")
    with recording():
        assert not records_spans()
