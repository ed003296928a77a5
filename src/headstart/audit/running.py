"""Runs a script as ``python SCRIPT ARGS…`` would, under observation.

torch is not imported before the script does it, so that environment variables that the script sets
first still count; the observer is installed the moment that torch has been imported.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.abc
import importlib.machinery
import importlib.util
import io
import os
import signal
import sys
import threading
import time
import traceback
import types
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from headstart.audit.imports import After
from headstart.audit.places import is_library
from headstart.audit.program import Program, find_program
from headstart.audit.records import Ending, How, Report
from headstart.core.errors import ConfigError, DataError

if TYPE_CHECKING:
    from headstart.audit.observer import Observer

_POLL_SECONDS = 0.02


def audit_script(
    script: str | Path,
    arguments: Sequence[str] = (),
    *,
    steps: int | None = None,
    seconds: float | None = None,
    stdout_to_stderr: bool = False,
    last_resort: Callable[[Report], None] | None = None,
) -> Report:
    """Run a script under observation, and return what was found.

    Args:
        script: a Python file, or the name of a module, as ``python -m`` takes it. It runs as
            ``__main__``, with its own ``sys.argv`` and ``sys.path``, in the present working
            directory, and reads the present standard input.
        arguments: its arguments.
        steps: stop after so many steps of optimizers; None: at its end.
        seconds: stop after so many seconds; None: at its end.
        stdout_to_stderr: whether what it prints goes to standard error.
        last_resort: called with the report where the script catches whatever is to end it, and goes
            on for ever; it has to end the process.

    Raises:
        DataError: the file cannot be read or is no Python.
        ConfigError: impossible settings.
    """
    faults = []
    if steps is not None and steps < 1:
        faults.append(f"steps must be at least 1, not {steps}")
    if seconds is not None and not seconds > 0:
        faults.append(f"seconds must be above 0, not {seconds:g}")
    if faults:
        raise ConfigError(tuple(faults))
    program = find_program(script)
    code = _compiled(program)
    watching = _Watching(steps)
    try:
        with contextlib.ExitStack() as stack:
            if stdout_to_stderr:
                stack.enter_context(_output_to_stderr())
            stack.enter_context(_as_main(program, list(arguments)))
            stack.enter_context(watching.when_imported())
            if last_resort is not None:
                watching.give_up = functools.partial(_give_up, watching, stack, last_resort)
            ending = _run(code, watching, seconds, steps)
        return watching.report(ending)
    finally:
        watching.remove()


def _compiled(program: Program) -> types.CodeType:
    script = program.file
    try:
        source = script.read_bytes()
    except IsADirectoryError as error:
        raise DataError(
            f"'{script}' is a folder, expected a Python file",
            hint=f"name the file, such as '{script / '__main__.py'}'",
        ) from error
    except OSError as error:
        raise DataError(f"'{script}' cannot be read: {error.strerror}") from error
    if not source.strip():
        raise DataError(f"'{script}' is empty: there is nothing to run")
    if script.suffix == ".ipynb":
        raise DataError(
            f"'{script}' is a notebook, expected a Python file",
            hint="save it as one first, in Jupyter under 'Save and Export Notebook As'",
        )
    try:
        return compile(source, str(script.absolute()), "exec", dont_inherit=True)
    except SyntaxError as error:
        raise DataError(
            f"'{script}' is not valid Python: {error.msg}, line {error.lineno}"
        ) from error
    except ValueError as error:
        raise DataError(f"'{script}' is not valid Python: {error}") from error


def _give_up(
    watching: _Watching,
    stack: contextlib.ExitStack,
    last_resort: Callable[[Report], None],
    how: How,
    message: str,
) -> None:
    report = watching.report(
        Ending(how, f"{message}; it catches the exception that is meant to end it")
    )
    stack.close()
    last_resort(report)


class _Watching:
    """The observer, once there is something to observe."""

    def __init__(self, steps: int | None) -> None:
        self.steps = steps
        self.observer: Observer | None = None
        self.owner = os.getpid()
        self.give_up: Callable[[How, str], None] = lambda _how, _message: None

    @contextlib.contextmanager
    def when_imported(self) -> Iterator[None]:
        """Install the observer now, or as soon as torch has been imported."""
        if "torch" in sys.modules:
            self.install()
            yield
            return
        # Keras on its PyTorch backend imports torch before it is there itself.
        finders = [After("torch", self.install), After("keras", self.keras_imported)]
        sys.meta_path[:0] = finders
        try:
            yield
        finally:
            for finder in finders:
                with contextlib.suppress(ValueError):
                    sys.meta_path.remove(finder)

    def install(self) -> None:
        from headstart.audit.checks import all_checks
        from headstart.audit.observer import Observer

        self.observer = Observer(all_checks(), self.steps)
        self.observer.hub.on_swallowed = lambda: self.give_up(
            "steps", f"stopped after {self.steps} steps, as requested"
        )
        self.observer.install()

    def keras_imported(self) -> None:
        if self.observer is not None:
            self.observer.scene.keras.install()

    def remove(self) -> None:
        if self.observer is not None:
            self.observer.remove()

    def crashed(self, error: BaseException) -> None:
        if self.observer is not None:
            self.observer.crashed(error)

    def is_stop(self, error: BaseException) -> bool:
        if self.observer is None:
            return False
        from headstart.audit.hub import StopAudit

        return isinstance(error, StopAudit)

    def report(self, ending: Ending) -> Report:
        if self.observer is None:
            return Report(
                (), 0, 0, ending, ("the script did not import torch: nothing to observe",)
            )
        self.observer.remove()
        scene = self.observer.scene
        findings = self.observer.findings()
        notes = list(scene.notes)
        if not scene.n_passes and not scene.keras.runs:
            notes.append("no network ran: no torch.nn.Module with parameters was called")
        elif not scene.steps and not scene.keras.runs:
            notes.append(
                "no training loop was seen: no optimizer of torch.optim took a step; only what"
                " forward passes show was checked"
            )
        return Report(findings, scene.steps, scene.n_passes, ending, tuple(notes))


@contextlib.contextmanager
def _as_main(program: Program, arguments: list[str]) -> Iterator[None]:
    """Give the script the ``__main__``, ``sys.argv`` and ``sys.path`` that Python would."""
    path = str(program.file.absolute())
    main = types.ModuleType("__main__")
    main.__dict__.update(
        __file__=path,
        __builtins__=__builtins__,
        __spec__=program.spec,
        __loader__=importlib.machinery.SourceFileLoader("__main__", path),
        __cached__=None,
        __package__=None if program.spec is None else program.spec.parent,
    )
    kept = (sys.modules.get("__main__"), sys.argv, list(sys.path))
    sys.modules["__main__"] = main
    sys.argv = [str(program.file) if program.spec is None else path, *arguments]
    # The first entry is that of the program that runs the audit.
    sys.path[:] = [program.folder, *[p for p in sys.path if p not in ("", program.folder)]]
    try:
        yield
    finally:
        if kept[0] is not None:
            sys.modules["__main__"] = kept[0]
        sys.argv = kept[1]
        sys.path[:] = kept[2]


class _OutOfTime(BaseException):
    pass


@contextlib.contextmanager
def _time_limit(seconds: float | None, watching: _Watching) -> Iterator[None]:
    """Raise in the main thread after some time."""
    if seconds is None or threading.current_thread() is not threading.main_thread():
        yield
        return

    times, over = 0, False

    def end(_number: int, _frame: Any) -> None:
        nonlocal times
        if over:  # the script has ended: what follows is not to be interrupted
            return
        times += 1
        if times > 3:
            watching.give_up("seconds", f"stopped after {seconds:g} seconds, as requested")
        raise _OutOfTime

    before = signal.signal(signal.SIGALRM, end)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.5)
    try:
        yield
    finally:
        over = True
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def _run(
    code: types.CodeType, watching: _Watching, seconds: float | None, steps: int | None
) -> Ending:
    """Run the script, and say how it ended."""
    namespace = sys.modules["__main__"].__dict__
    others = set(threading.enumerate())
    try:
        with _time_limit(seconds, watching):
            exec(code, namespace)  # noqa: S102 this is what the user asks for
            _join_threads(others)
    except SystemExit as error:
        _leave_if_forked(watching)
        return _exited(error)
    except _OutOfTime:
        return Ending("seconds", f"stopped after {seconds:g} seconds, as requested")
    except KeyboardInterrupt:
        return Ending("interrupt", "interrupted; these are the findings so far", 130)
    except BaseException as error:
        _leave_if_forked(watching)
        if watching.is_stop(error):
            return Ending("steps", f"stopped after {steps} steps, as requested")
        watching.crashed(error)
        return _crashed(error)
    _leave_if_forked(watching)
    return Ending("end", "ran to its end")


def _join_threads(others: set[threading.Thread]) -> None:
    """Wait for the script's threads, as Python does at its end.

    Idle workers of an executor that nobody shut down wait for ever; Python dismisses them when the
    process ends.

    Args:
        others: threads that ran before the script did.
    """
    queues = getattr(sys.modules.get("concurrent.futures.thread"), "_threads_queues", {})
    managers = getattr(sys.modules.get("concurrent.futures.process"), "_threads_wakeups", {})
    for thread in threading.enumerate():
        if thread is threading.current_thread() or thread.daemon or thread in others:
            continue
        if thread in queues:
            while queues[thread].qsize():
                time.sleep(_POLL_SECONDS)
        elif thread not in managers:
            thread.join()


def _leave_if_forked(watching: _Watching) -> None:
    if os.getpid() != watching.owner:  # a child that the script forked, and that ran to its end
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(0)


def _exited(error: SystemExit) -> Ending:
    code = error.code
    name = getattr(error, "name", None)
    if isinstance(name, str) and name.startswith("SIG"):
        return Ending(
            "interrupt", f"ended by {name}; these are the findings so far", int(code or 1)
        )
    if code is None or code == 0:
        return Ending("exit", f"ended itself with sys.exit({'' if code is None else 0})")
    if isinstance(code, int):
        return Ending("exit", f"ended itself with sys.exit({code})", code)
    return Ending("exit", f"ended itself with sys.exit: {' '.join(str(code).split())[:200]}", 1)


def _crashed(error: BaseException) -> Ending:
    """Describe a crash, with the traceback from the user's code on."""
    frames = traceback.extract_tb(error.__traceback__)
    first = next((i for i, each in enumerate(frames) if not is_library(each.filename)), 0)
    text = "".join(
        [
            "Traceback (most recent call last):\n",
            *traceback.format_list(frames[first:]),
            *traceback.format_exception_only(error),
        ]
    )
    own = [each for each in frames if not is_library(each.filename)]
    where = f" at {own[-1].filename}:{own[-1].lineno}" if own else ""
    what = " ".join(str(error).split())
    message = f"crashed with {type(error).__name__}{': ' + what if what else ''}{where}"
    if isinstance(error, ImportError) and "relative import" in what:
        message += (
            "; it is part of a package: from the folder above, name it as 'python -m' does,"
            " as in 'headstart audit package.train'"
        )
    if isinstance(error, EOFError):
        message += (
            "; it reads standard input, which is empty here: provide its input, as in 'echo 3 |"
            " headstart audit script.py'"
        )
    return Ending("crash", message, 1, text)


@contextlib.contextmanager
def _output_to_stderr() -> Iterator[None]:
    """Let whatever the script and its processes print go to standard error."""
    sys.stdout.flush()
    kept: int | None = None
    with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
        kept = os.dup(1)
        os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        if kept is not None:
            os.dup2(kept, 1)
            os.close(kept)


__all__ = ["audit_script"]
