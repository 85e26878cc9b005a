"""How a command talks: options that all commands share, one sentence for an error, one JSON document with --json."""

from __future__ import annotations

import errno
import functools
import json
import sys
import traceback
from collections.abc import Callable, Sequence
from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Any, cast

import typer
from typer.core import TyperGroup
from typer.exceptions import TyperException

from flows.disk import CLOSED
from flows.errors import BadConfig, PipelineError

ConfigOption = Annotated[
    Path | None, typer.Option("--config", help="Config file; by default config.yaml in the workspace.")
]
WorkspaceOption = Annotated[Path, typer.Option("--workspace", help="Folder of all data.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
DebugOption = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]

DEFAULT_WORKSPACE = Path("workspace")
_WORDS = "softad.words"


def command(function: Callable[..., Any]) -> Callable[..., None]:
    """Make a function a command: what it returns is printed, what it raises becomes a sentence and a status.

    The function returns a `Reply`, or None when it has printed all itself.
    """

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> None:
        as_json, debug = bool(kwargs.get("as_json")), bool(kwargs.get("debug"))
        status = 0
        try:
            reply = function(*args, **kwargs)
            if reply is not None:
                reply.show(as_json)
                status = reply.status
        except PipelineError as error:
            status = _fail(str(error), error.exit_status, as_json=as_json, debug=debug)
        except KeyboardInterrupt:
            status = _fail("stopped by Ctrl-C; run the command again to go on", 130, as_json=as_json, debug=False)
        except OSError as error:
            status = _fail(_disk_sentence(error), 1, as_json=as_json, debug=debug)
        except (typer.Exit, typer.Abort):
            raise
        except Exception as error:
            text = f"{type(error).__name__}: {error}".split("\n", maxsplit=1)[0]
            sentence = f"this should not have happened ({text}); run again with --debug and report what it prints"
            status = _fail(sentence, 1, as_json=as_json, debug=debug)
        raise typer.Exit(status)

    return run


class Commands(TyperGroup):
    """All commands together: wrong words, also of a sub-command, are told as any other error is.

    >>> from typer.testing import CliRunner
    >>> app = typer.Typer(cls=Commands, name="softad")
    >>> @app.command()
    ... def run(rows: int = 3) -> None: ...
    >>> @app.command()
    ... def status() -> None: ...
    >>> print(CliRunner().invoke(app, ["status", "--jsn"]).stderr, end="")
    error: no such option: --jsn; see softad status --help
    """

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Read the words before the sub-command."""
        words = list(args)
        try:
            context = super().make_context(info_name, args, parent, **extra)
        except TyperException as error:
            raise _wrong_words(error, words) from error
        context.meta[_WORDS] = words
        return context

    def invoke(self, ctx: Any) -> Any:
        """Read the words after it, and run it."""
        try:
            return super().invoke(ctx)
        except TyperException as error:
            raise _wrong_words(error, ctx.meta[_WORDS], within=ctx.invoked_subcommand) from error


class Reply:
    """What a command has to say: a document for programs, lines for people, an exit status.

    Attributes
    ----------
    errors: sentences on what failed while the rest was done; people find them on standard error, as of any error.

    >>> Reply({"rows": 3}, ["3 rows"]).status
    0
    """

    def __init__(self, document: dict[str, Any], lines: list[Any], status: int = 0, errors: Sequence[str] = ()) -> None:
        self.document, self.lines, self.status, self.errors = document, lines, status, errors

    def show(self, as_json: bool) -> None:
        """Print it."""
        if as_json:
            sys.stdout.write(json.dumps(self.document, ensure_ascii=False, indent=2, default=plain) + "\n")
            return
        from rich.console import Console

        console = Console(soft_wrap=True, highlight=False)
        for line in self.lines:
            console.print(line, markup=False) if isinstance(line, str) else console.print(line)
        for sentence in self.errors:
            sys.stderr.write(f"error: {sentence}\n")


def plain(value: Any) -> Any:
    """JSON's view of what our documents hold besides text and numbers.

    >>> plain(Path("a/b"))
    'a/b'
    """
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, (datetime, date)):
        return value.isoformat()
    if hasattr(value, "item"):
        return value.item()
    raise TypeError(f"{type(value).__name__} has no place in a JSON document")


def note(text: str) -> None:
    """A line for people while work goes on; on standard error, so that standard output stays clean."""
    sys.stderr.write(text + "\n")


def _wrong_words(error: Any, words: list[str], within: str | None = None) -> Exception:
    """What ends the command after one sentence; the error itself where it is only the help, for want of any word."""
    said = " ".join(error.format_message().split()).rstrip(".")
    if not said:
        return cast("Exception", error)
    for theirs, ours in (("Value error, ", ""), (": Input should", ": it should"), (". Did you", "; did you")):
        said = said.replace(theirs, ours)
    names: list[str] = [within] if error.ctx is None and within else []
    context = error.ctx
    while context is not None and context.parent is not None:
        names.insert(0, context.info_name)
        context = context.parent
    way = f"{' See' if said.endswith('?') else '; see'} {' '.join(['softad', *names])} --help"
    given = words[: words.index("--")] if "--" in words else words
    sentence = said[0].lower() + said[1:] + way
    return typer.Exit(_fail(sentence, BadConfig.exit_status, as_json="--json" in given, debug=False))


def _fail(sentence: str, status: int, *, as_json: bool, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    if as_json:
        sys.stdout.write(json.dumps({"error": sentence, "exit_status": status}, ensure_ascii=False, indent=2) + "\n")
    sys.stderr.write(f"error: {sentence}\n")
    return status


def _disk_sentence(error: OSError) -> str:
    where = f" at {error.filename}" if error.filename else ""
    if error.errno == errno.ENOSPC:
        return f"the disk is full{where}; free some space and run the command again, nothing is lost"
    if error.errno in CLOSED:
        return f"no permission to write{where}; check who owns the folder, then run the command again"
    return f"{error.strerror or error}{where}; run again with --debug for details"
