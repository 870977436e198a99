"""Record the output of this process during a test.

Recorded are log records of every level, warnings, the standard output and error, and the spans of
OpenTelemetry if an SDK is set up. Other handlers and readers get exactly what they would have got
without the recording.
"""

from __future__ import annotations

import logging
import math
import sys
import threading
import traceback
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from copy import copy
from dataclasses import dataclass, field
from logging.handlers import QueueHandler
from queue import SimpleQueue
from types import TracebackType
from typing import Any, Literal, TypeAlias
from weakref import WeakSet

__all__ = ["Channel", "Output", "Recording", "recording", "records_spans"]

Channel: TypeAlias = Literal[
    "result",
    "notification",
    "header",
    "schema",
    "log",
    "warning",
    "stdout",
    "stderr",
    "span",
    "record",
    "exception",
]
"""Where something can be read: in an answer, or in what a server leaves behind."""

_NOT_EXTRA = {*vars(logging.makeLogRecord({})), "message", "asctime", "taskName"}


@dataclass(frozen=True)
class Output:
    """One piece of output.

    Attributes:
        channel: its channel.
        where: the log, header, span, ...; empty if the channel has only one.
        text: its text.
    """

    channel: Channel
    where: str
    text: str = field(repr=False)


class Recording:
    """The output since the last call of :meth:`take`."""

    def __init__(self) -> None:
        self._heard: list[Output] = []
        self._records: list[logging.LogRecord] = []
        self._formatter = _Formatter(self)

    def add(self, channel: Channel, where: str, text: str) -> None:
        """Record one piece of output."""
        self._heard.append(Output(channel, where, text))

    def add_log_record(self, record: logging.LogRecord) -> None:
        """Record a log record: now, and with the attributes added until :meth:`take`."""
        self._records.append(record)
        self._formatter.handle(copy(record))

    def add_exception(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        _: TracebackType | None = None,
    ) -> None:
        """Record an exception, with the arguments of an ``ExitStack`` callback."""
        if kind is not None and error is not None:
            self.add("exception", kind.__name__, "".join(traceback.format_exception(error)))

    def take(self) -> list[Output]:
        """Return the new output, with the pieces written to a stream joined."""
        records, self._records = self._records, []
        for record in records:
            extra = {name: value for name, value in vars(record).items() if name not in _NOT_EXTRA}
            if extra:
                added = copy(record)
                added.msg, added.args, added.exc_info = "%r", (extra,), None
                self._formatter.handle(added)
        heard, self._heard = self._heard, []
        streams: tuple[Channel, ...] = ("stdout", "stderr")
        written = [
            Output(name, "", "".join(each.text for each in heard if each.channel == name))
            for name in streams
        ]
        return [*(each for each in heard if each.channel not in streams), *filter(_text, written)]


def _text(output: Output) -> str:
    return output.text


class _Formatter(QueueHandler):
    """Formats a record as handlers do; records that cannot be formatted are skipped."""

    def __init__(self, reader: Recording) -> None:
        super().__init__(SimpleQueue())
        self._reader = reader

    def enqueue(self, record: logging.LogRecord) -> None:
        self._reader.add("log", f"{record.name} ({record.levelname})", str(record.msg))

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - logging's name
        pass


_lock = threading.Lock()
_recordings: list[Recording] = []
#: Restores everything when the last recording ends.
_hooks = ExitStack()


@contextmanager
def recording() -> Iterator[Recording]:
    """Record the output of the whole process; recordings may overlap."""
    made = Recording()
    with _lock:
        if not _recordings:
            for hook in (_logs, _warnings, _streams, _spans):
                _hooks.enter_context(hook())
        _recordings.append(made)
    try:
        yield made
    finally:
        with _lock:
            _recordings.remove(made)
            if not _recordings:
                _hooks.close()


def _record(channel: Channel, where: str, text: str) -> None:
    for each in tuple(_recordings):
        each.add(channel, where, text)


# --- logs


@contextmanager
def _logs() -> Iterator[None]:
    make = logging.getLogRecordFactory()

    def make_and_tell(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        for each in tuple(_recordings):
            each.add_log_record(record)
        return record

    logging.setLogRecordFactory(make_and_tell)
    with _every_level():
        yield
    if logging.getLogRecordFactory() is make_and_tell:
        logging.setLogRecordFactory(make)


@contextmanager
def _every_level() -> Iterator[None]:
    """Make every logger speak, though not to those who would not have heard it."""
    manager = logging.root.manager
    known = (each for each in manager.loggerDict.values() if isinstance(each, logging.Logger))
    loggers = [logging.root, *known]
    before = [(each, each.level, each.disabled) for each in loggers]
    threshold, as_before = manager.disable, _UnchangedLevels(loggers)
    handlers = {each for logger in loggers for each in logger.handlers}
    handlers |= {logging.lastResort} if logging.lastResort is not None else set()
    for handler in handlers:
        handler.addFilter(as_before)
    logging.disable(logging.NOTSET)
    for logger, level, _ in before:
        logger.disabled = False
        if level > logging.DEBUG or logger is logging.root:
            logger.setLevel(logging.DEBUG)
    yield
    for logger, level, disabled in before:
        logger.disabled = disabled
        if logger.level == logging.DEBUG:  # unless it was set since
            logger.setLevel(level)
    logging.disable(threshold)
    for handler in handlers:
        handler.removeFilter(as_before)


class _UnchangedLevels(logging.Filter):
    """Lets a handler have what it would have had."""

    def __init__(self, loggers: list[logging.Logger]) -> None:
        super().__init__()
        self._levels = {each.name: each.level for each in loggers if each.level}
        self._disabled = {each.name for each in loggers if each.disabled}
        self._above = logging.root.manager.disable

    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno > self._above and record.levelno >= self._level(record.name)

    def _level(self, name: str) -> float:
        if name in self._disabled:
            return math.inf
        while name and name not in self._levels:
            name = name.rpartition(".")[0]
        return self._levels.get(name or logging.root.name, logging.NOTSET)


# --- warnings and streams


@contextmanager
def _warnings() -> Iterator[None]:
    show = warnings.showwarning

    def show_and_tell(
        message: Warning | str, category: type[Warning], *args: Any, **kwargs: Any
    ) -> None:
        _record("warning", category.__name__, str(message))
        show(message, category, *args, **kwargs)

    warnings.showwarning = show_and_tell
    yield
    if warnings.showwarning is show_and_tell:
        warnings.showwarning = show


@contextmanager
def _streams() -> Iterator[None]:
    channels: tuple[Channel, ...] = ("stdout", "stderr")
    before = {name: getattr(sys, name) for name in channels}
    # A program without a console has none.
    heard = {name: _RecordedStream(stream, name) for name, stream in before.items() if stream}
    for name, stream in heard.items():
        setattr(sys, name, stream)
    yield
    for name, stream in heard.items():
        if getattr(sys, name) is stream:
            setattr(sys, name, before[name])


class _RecordedStream:
    """A text stream that is recorded."""

    def __init__(self, stream: Any, channel: Channel) -> None:
        self._stream = stream
        self._channel: Channel = channel

    def write(self, text: str) -> Any:
        _record(self._channel, "", str(text))
        return self._stream.write(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


# --- spans


class _SpanListener:
    """A span processor of OpenTelemetry's SDK; that has no way to remove one."""

    def on_start(self, span: Any, parent_context: object = None) -> None:
        """Wait until there is something in it."""

    def _on_ending(self, span: Any) -> None:
        pass

    def on_end(self, span: Any) -> None:
        """Tell everything in it."""
        if _recordings:
            _record("span", str(span.name), str(span.to_json(indent=None)))

    def shutdown(self) -> None:
        """Do nothing."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Have nothing left to do."""
        return timeout_millis >= 0


_recorded_providers: WeakSet[Any] = WeakSet()


@contextmanager
def _spans() -> Iterator[None]:
    provider = _span_provider()
    if provider is not None and provider not in _recorded_providers:
        _recorded_providers.add(provider)
        provider.add_span_processor(_SpanListener())
    yield


def records_spans() -> bool:
    """Return whether this process records spans that can be listened to."""
    return _span_provider() is not None


def _span_provider() -> Any:
    # Who records spans has imported it.
    trace = sys.modules.get("opentelemetry.trace")
    provider = trace.get_tracer_provider() if trace is not None else None
    return provider if hasattr(provider, "add_span_processor") else None
