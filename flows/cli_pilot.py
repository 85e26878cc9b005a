"""The command `softad pilot`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from flows.console import DebugOption, JsonOption, Reply, command


class Language(StrEnum):
    """Of the report."""

    en = "en"
    ja = "ja"


class SplitOption(StrEnum):
    """How rows part."""

    auto = "auto"
    time = "time"
    group = "group"
    random = "random"


@command
def pilot(
    data: Annotated[Path, typer.Argument(help="CSV or Parquet with labelled rows.")],
    label: Annotated[str | None, typer.Option(help="Column to predict.")] = None,
    time: Annotated[str | None, typer.Option(help="Column with the time of inspection.")] = None,
    group: Annotated[str | None, typer.Option(help="Rows that share it never part at a split.")] = None,
    slices: Annotated[list[str] | None, typer.Option(help="Columns by which hard parts are located: a,b.")] = None,
    images: Annotated[Path | None, typer.Option(help="Zip or folder with the images that DATA lists.")] = None,
    normal: Annotated[str | None, typer.Option(help="The class of good parts.")] = None,
    regression: Annotated[bool, typer.Option("--regression", help="The label is a number to be estimated.")] = False,
    split: Annotated[SplitOption, typer.Option(help="How rows part.")] = SplitOption.auto,
    minutes: Annotated[float, typer.Option(min=0.05, max=600, help="Longest time; it ends sooner if done.")] = 10.0,
    cost_miss: Annotated[float | None, typer.Option(help="Cost of one missed defect.")] = None,
    cost_false_reject: Annotated[float | None, typer.Option(help="Cost of one rejected good part.")] = None,
    language: Annotated[Language, typer.Option(help="Of the report.")] = Language.en,
    seed: Annotated[int, typer.Option(min=0, help="Of splits and weights.")] = 0,
    page: Annotated[Path, typer.Option(help="HTML page to write; JSON and config go beside it.")] = Path("pilot.html"),
    budget: Annotated[float | None, typer.Option(min=1.0, hidden=True, help="The time in seconds.")] = None,
    as_json: JsonOption = False,
    debug: DebugOption = False,
) -> Reply:
    """Does SoftAD help on this data? A report that one can decide on: figures, effect, cost, recommendation."""
    from flows.pilot_study import run_pilot
    from flows.targets import writable_file

    writable_file(page, "with --page")
    with _bar(as_json) as progress:
        return run_pilot(
            data, label=label, time_column=time, group=group, slices=tuple(slices or ()), images=images,
            normal=normal, regression=regression, split=split.value, seconds=budget or 60.0 * minutes, page=page,
            language=language.value, cost_miss=cost_miss, cost_false_reject=cost_false_reject, seed=seed,
            progress=progress,
        )  # fmt: skip


@contextmanager
def _bar(quiet: bool) -> Iterator[Callable[[float, str], None] | None]:
    """A bar of the time used, with what was done last, on standard error; none when quiet or not before a terminal."""
    from rich.console import Console

    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield None
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)

        def tell(share: float, what: str) -> None:
            bar.update(task, completed=min(share, 1.0), description=what)

        yield tell
