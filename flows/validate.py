"""Check rows against the expectation suite: which rows fail which rule, all of them, by name.

The only module that knows Great Expectations. Its own lists of failing rows are capped, or lost when a value has the
wrong type; so values are coerced before, the list of failing rows is asked for in the one way that is complete and
counted against the number of failures, and a rule that could not be evaluated is an error with its name, never a pass.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import functools
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd

from flows.errors import BadConfig
from flows.rules import Rule, load_suite, plan, unknown_type

__all__ = ["BrokenRule", "Checker", "Failure", "RuleFailures", "check", "load_suite"]


@dataclass(frozen=True)
class RuleFailures:
    """Rows that fail one rule.

    Attributes
    ----------
    rows: (k,) positions in the frame, ascending.
    values: the k values (a tuple where the rule names several columns).
    """

    rule: Rule
    rows: np.ndarray
    values: list[Any]


@dataclass(frozen=True)
class BrokenRule:
    """A rule about the whole that does not hold.

    Attributes
    ----------
    observed: what was found instead, as text.
    """

    rule: Rule
    observed: str


@dataclass(frozen=True)
class Failure:
    """One value that fails one rule; `row` is None where the rule is about the whole."""

    row: int | None
    rule: str
    column: str
    value: Any


class Checker:
    """One suite, ready to check one frame after the other.

    Parameters
    ----------
    suite: as `load_suite` gives it.
    source: the suite's file, for error sentences.
    time_columns: column -> time zone, for columns that come as times; limits written as text are read in that zone.

    Raises
    ------
    BadConfig: an expectation that does not exist, or an argument that does not fit.

    >>> checker = Checker([{"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "max_value": 5},
    ...                     "meta": {"rule": "x small"}}])
    >>> found = checker.rows(pd.DataFrame({"x": [1.0, 7.0, float("nan"), 9.0]}))
    >>> found[0].rule.name, found[0].rows.tolist(), found[0].values
    ('x small', [1, 3], [7.0, 9.0])
    """

    def __init__(
        self,
        suite: list[dict[str, Any]],
        *,
        source: str = "the expectations",
        time_columns: Mapping[str, str] | None = None,
    ) -> None:
        self.source = source
        self.plan = plan(suite, source)
        self.conditional = any(rule.kwargs.get("row_condition") for rule in self.plan)
        if not self.plan:
            return
        import great_expectations as gx

        # Deprecations inside the library are no news for the plant.
        for name in ("great_expectations", "great_expectations.data_context.types.base"):
            logging.getLogger(name).setLevel(logging.ERROR)
        context = gx.get_context(mode="ephemeral")
        quiet: Any = {"globally": False, "metric_calculations": False}
        context.variables.progress_bars = quiet
        asset = context.data_sources.add_pandas("rows").add_dataframe_asset("frame")
        self._definition = asset.add_batch_definition_whole_dataframe("all")
        self._zones = dict(time_columns or {})
        self._expectations = {rule.name: self._build(rule) for rule in self.plan}
        self._groups = _grouped(self.of("row"))

    def of(self, *kinds: str) -> list[Rule]:
        """The rules of these kinds, in the suite's order."""
        return [rule for rule in self.plan if rule.kind in kinds]

    @functools.cached_property
    def columns(self) -> list[str]:
        """Every column whose cells a rule about single rows looks at."""
        return list(dict.fromkeys(name for rule in self.of("row") for name in rule.columns))

    @functools.cached_property
    def needed(self) -> list[str]:
        """Every column that a file must have for the rules to be checked."""
        return list(dict.fromkeys(name for rule in self.of("row", "unique", "whole") for name in rule.columns))

    @functools.cached_property
    def numbers(self) -> set[str]:
        """Columns that a rule compares as numbers."""
        return {name for rule in self.plan if rule.needs_numbers for name in rule.columns}

    @functools.cached_property
    def only_presence(self) -> set[str]:
        """Columns of which rules ask only whether a cell is there."""
        return self._asked_only({"expect_column_values_to_not_be_null", "expect_column_values_to_be_null"})

    @functools.cached_property
    def only_membership(self) -> set[str]:
        """Columns of which rules ask only whether a cell is there, or one of some texts."""
        members = {"expect_column_values_to_be_in_set", "expect_column_values_to_not_be_in_set"}
        asked = self._asked_only({"expect_column_values_to_not_be_null", "expect_column_values_to_be_null", *members})
        return asked - self.numbers

    def _asked_only(self, types: set[str]) -> set[str]:
        others = {name for rule in self.of("row") if rule.type not in types for name in rule.columns}
        return set() if self.conditional else set(self.columns) - others

    def rows(self, frame: pd.DataFrame) -> list[RuleFailures]:
        """The rows of a frame that fail a rule about single rows, rule by rule; `mostly` is left to the caller.

        Raises
        ------
        BadConfig: a rule could not be evaluated; the sentence names it.
        """
        rules = self.of("row")
        if not rules or frame.empty:
            return []
        found: dict[str, RuleFailures] = {}
        for columns, group in self._groups if len(frame) >= _MANY_ROWS else [(None, rules)]:
            with self._batch(frame if columns is None else frame[columns]) as batch:
                results = self._validated(batch, group, {"result_format": "BOOLEAN_ONLY"})
                # Listing the failing rows is dear, so only the few rules that fail are asked again.
                failing = [rule for rule in group if not results[rule.name].success]
                listed = self._validated(batch, failing, _COMPLETE) if failing else {}
            found |= {rule.name: self._failures(rule, frame, listed[rule.name].result) for rule in failing}
        return [found[rule.name] for rule in rules if rule.name in found]

    def whole(self, rule: Rule, frame: pd.DataFrame) -> RuleFailures | BrokenRule | None:
        """Check a rule that needs to see whole columns; None where it holds."""
        with self._batch(frame) as batch:
            outcome = batch.validate(self._expectations[rule.name], result_format=_COMPLETE)
        self._refuse_errors([outcome])
        if outcome.success:
            return None
        if outcome.result.get("unexpected_index_list"):
            return self._failures(rule, frame, outcome.result)
        return BrokenRule(rule, _observed(outcome.result))

    def count(self, rows: int) -> list[BrokenRule]:
        """Check the rules about the number of rows."""
        rules = self.of("count")
        if not rules:
            return []
        frame = pd.DataFrame({"any": np.zeros(rows, dtype=np.int8)})
        found = [self.whole(rule, frame) for rule in rules]
        return [broken for broken in found if isinstance(broken, BrokenRule)]

    def header(self, columns: Sequence[str], numeric: set[str]) -> list[BrokenRule]:
        """Check the rules about which columns there are."""
        rules = self.of("columns")
        if not rules:
            return []
        frame = pd.DataFrame({name: pd.Series(dtype="float64" if name in numeric else "str") for name in columns})
        found = [self.whole(rule, frame) for rule in rules]
        return [broken for broken in found if isinstance(broken, BrokenRule)]

    # -- inside ---------------------------------------------------------------------------------------------------

    def _build(self, rule: Rule) -> Any:
        from great_expectations.expectations.registry import (
            get_expectation_impl,
            list_registered_expectation_implementations,
        )

        known = list_registered_expectation_implementations()
        if rule.type not in known:
            raise unknown_type(rule.type, known, self.source)
        kwargs = {key: value for key, value in rule.kwargs.items() if key != "mostly" or rule.kind == "whole"}
        implementation: Any = get_expectation_impl(rule.type)
        unknown = sorted(set(kwargs) - set(implementation.__fields__))
        if unknown:  # the library would drop it without a word, and check less than was asked
            raise BadConfig(f"{self.source}: the rule {rule.name!r} has an unknown argument {unknown[0]!r}; mend it")
        zone = next((self._zones[name] for name in rule.columns if name in self._zones), None)
        if zone is not None:
            kwargs = {key: _as_time(value, zone) if key in _LIMITS else value for key, value in kwargs.items()}
        try:
            return implementation(**kwargs, meta={"rule": rule.name}, severity=rule.severity)
        except Exception as error:  # the library raises whatever its argument checks raise
            reason = str(error).splitlines()[-1].strip()
            raise BadConfig(
                f"{self.source}: the rule {rule.name!r} has an argument that does not fit: {reason}"
            ) from error

    @contextlib.contextmanager
    def _batch(self, frame: pd.DataFrame) -> Iterator[Any]:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            # Failing rows are listed by the index, which has to count them.
            yield self._definition.get_batch(batch_parameters={"dataframe": frame.reset_index(drop=True)})

    def _validated(self, batch: Any, rules: Sequence[Rule], result_format: dict[str, Any]) -> dict[str, Any]:
        """What the library says of each rule, by its name."""
        import great_expectations as gx

        suite = gx.ExpectationSuite(name="rows", expectations=[self._expectations[rule.name] for rule in rules])
        outcome = batch.validate(suite, result_format=result_format)
        self._refuse_errors(outcome.results)
        return {result.expectation_config.meta["rule"]: result for result in outcome.results}

    def _failures(self, rule: Rule, frame: pd.DataFrame, result: Mapping[str, Any]) -> RuleFailures:
        listed = result.get("unexpected_index_list")
        if listed is None or len(listed) != result.get("unexpected_count"):
            raise BadConfig(
                f"{self.source}: the rule {rule.name!r} failed without naming its rows (has its column another type?); "
                f"mend or remove it"
            )
        rows = np.unique(np.array(listed, dtype=np.int64))
        cells = [[_native(value) for value in frame[name].take(rows).tolist()] for name in rule.columns]
        values = cells[0] if len(cells) == 1 else [tuple(row) for row in zip(*cells, strict=True)]
        return RuleFailures(rule, rows, values)

    def _refuse_errors(self, results: Sequence[Any]) -> None:
        for result in results:
            message = _error(result.exception_info)
            if message:
                name = result.expectation_config.meta["rule"]
                raise BadConfig(f"{self.source}: the rule {name!r} could not be checked ({message}); mend or remove it")


def check(frame: pd.DataFrame, suite: list[dict[str, Any]], *, source: str = "the expectations") -> list[Failure]:
    """Every failure of a frame, which must hold all the rows that the rules compare.

    Raises
    ------
    BadConfig: a rule does not exist, or could not be evaluated.

    >>> check(pd.DataFrame({"x": ["a", "b", "a"]}), [{"type": "expect_column_values_to_be_unique",
    ...     "kwargs": {"column": "x"}, "meta": {"rule": "x once"}}])
    [Failure(row=0, rule='x once', column='x', value='a'), Failure(row=2, rule='x once', column='x', value='a')]
    """
    checker = Checker(suite, source=source)
    found: list[RuleFailures | BrokenRule | None] = [*checker.rows(frame), *checker.count(len(frame))]
    found.extend(checker.whole(rule, frame) for rule in checker.of("unique", "whole", "columns"))
    failures: list[Failure] = []
    for item in found:
        if isinstance(item, BrokenRule):
            failures.append(Failure(None, item.rule.name, ", ".join(item.rule.columns), item.observed))
        elif item is not None and 1 - len(item.rows) / len(frame) < item.rule.mostly:
            column = ", ".join(item.rule.columns)
            failures.extend(
                Failure(int(row), item.rule.name, column, value)
                for row, value in zip(item.rows, item.values, strict=True)
            )
    return failures


_MANY_ROWS = 20_000
"""From so many on, rules are checked on their own columns: the library copies a whole frame for each rule."""

_FEW_COLUMNS = 4
"""Of a frame that is checked at once, where there are many rows: each frame has its own cost, too."""


def _grouped(rules: Sequence[Rule]) -> list[tuple[list[str] | None, list[Rule]]]:
    """Rules in groups that name few columns together, with these; those with a condition on others, with None for all.

    >>> rules = plan([{"type": "expect_column_values_to_not_be_null", "kwargs": {"column": name}} for name in "abcde"]
    ...              + [{"type": "expect_column_values_to_be_between", "kwargs": {"column": "a", "max_value": 1}}])
    >>> [(columns, len(group)) for columns, group in _grouped(rules)]
    [(['a', 'b', 'c', 'd'], 5), (['e'], 1)]
    """
    conditional = [rule for rule in rules if rule.kwargs.get("row_condition")]
    alike: dict[tuple[str, ...], list[Rule]] = {}
    for rule in rules:
        if rule not in conditional:
            alike.setdefault(rule.columns, []).append(rule)
    groups: list[tuple[list[str] | None, list[Rule]]] = []
    named: list[str] = []
    for columns, some in alike.items():
        together = list(dict.fromkeys([*named, *columns]))
        if groups and len(together) <= _FEW_COLUMNS:
            groups[-1] = (together, [*groups[-1][1], *some])
        else:
            together = list(dict.fromkeys(columns))
            groups.append((together, some))
        named = together
    return [*groups, (None, conditional)] if conditional else groups


_LIMITS = {"min_value", "max_value"}
_COMPLETE = {"result_format": "COMPLETE", "partial_unexpected_count": 0, "return_unexpected_index_query": False}


def _native(value: Any) -> Any:
    if isinstance(value, float) and np.isnan(value):
        return None
    return None if value is pd.NaT else value


def _error(info: Any) -> str | None:
    """What an expectation raised: the library has two shapes for it, the second keyed by metric."""
    if not isinstance(info, dict):
        return None
    if info.get("raised_exception"):
        return _first_line(info.get("exception_message"))
    for nested in info.values():
        if isinstance(nested, dict) and nested.get("raised_exception"):
            return _first_line(nested.get("exception_message"))
    return None


def _first_line(message: Any) -> str:
    lines = str(message or "unknown error").strip().splitlines()
    return lines[0].rstrip(".") if lines else "unknown error"


def _as_time(value: Any, zone: str) -> Any:
    if isinstance(value, (str, dt.date)):
        moment = pd.Timestamp(value)
        return (moment if moment.tzinfo else moment.tz_localize(ZoneInfo(zone))).to_pydatetime()
    return value


def _observed(result: Mapping[str, Any]) -> str:
    observed = result.get("observed_value", "it does not hold")
    return f"{observed:.10g}" if isinstance(observed, float) else str(observed)
