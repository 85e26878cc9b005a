"""The expectation suite as it is written in YAML: read, named, and sorted by what each rule has to see.

A suite is a list of Great Expectations' own expectations::

    expectations:
      - type: expect_column_values_to_be_between
        kwargs: {column: torque, min_value: 0, max_value: 90}
        meta: {rule: torque in range}
        severity: critical        # warning and info are reported, and the rows taken in
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from flows.errors import BadConfig
from flows.strict_yaml import parsed

Kind = Literal["row", "unique", "whole", "columns", "count"]

_UNIQUE = {"expect_column_values_to_be_unique", "expect_compound_columns_to_be_unique"}
_COUNT = {"expect_table_row_count_to_be_between", "expect_table_row_count_to_equal"}
_WHOLE = {
    # They compare a row with others, so a part of the file would give another answer.
    "expect_column_value_z_scores_to_be_less_than",
    "expect_column_values_to_not_be_outliers",
    "expect_column_values_to_be_increasing",
    "expect_column_values_to_be_decreasing",
}
_OF_NUMBERS = (
    "values_to_be_between",
    "_mean_",
    "_median_",
    "_sum_",
    "_stdev_",
    "_min_",
    "_max_",
    "quantile",
    "z_scores",
    "outliers",
    "increasing",
    "decreasing",
    "greater_than",
)
_MEMBERS = ("value_set", "value_pairs_set")


@dataclass(frozen=True)
class Rule:
    """One expectation.

    Attributes
    ----------
    name: what people call it; unique in its suite.
    kind: "row" sees one row at a time; "unique" compares values; "whole" needs whole columns; "columns" looks at
        the header; "count" at the number of rows.
    mostly: share of rows that must fulfil it; below it, all failing rows are quarantined.
    columns: the columns that it names.
    """

    name: str
    type: str
    kwargs: dict[str, Any]
    severity: str
    mostly: float
    kind: Kind
    columns: tuple[str, ...]

    @property
    def needs_numbers(self) -> bool:
        """Whether its columns are compared as numbers, whatever the config calls them.

        >>> plan([{"type": "expect_column_values_to_be_in_set", "kwargs": {"column": "f", "value_set": [0, 1]}}])[
        ...     0].needs_numbers
        True
        """
        if any(isinstance(self.kwargs.get(key), str) for key in ("min_value", "max_value")):
            return False
        members = next((self.kwargs[key] for key in _MEMBERS if self.kwargs.get(key)), None)
        if members is not None:
            return all(isinstance(member, (int, float)) and not isinstance(member, bool) for member in members)
        return any(part in self.type for part in _OF_NUMBERS)

    def says(self, value: Any) -> str:
        """What is wrong with a value, as a clause.

        >>> rule = plan([{"type": "expect_column_values_to_be_between", "kwargs": {"column": "x", "max_value": 5}}])[0]
        >>> rule.says(7.0)
        'x is 7, allowed is up to 5'
        """
        where = " and ".join(self.columns) or "the row"
        if self.type == "expect_column_values_to_not_be_null":
            return f"{where} is empty"
        if self.type in _UNIQUE:
            return f"{where} is {_shown(value)}, which stands in another row too"
        if self.type == "expect_column_values_to_be_between":
            low, high = self.kwargs.get("min_value"), self.kwargs.get("max_value")
            allowed = f"up to {_shown(high)}" if low is None else f"{_shown(low)} to {_shown(high)}"
            return f"{where} is {_shown(value)}, allowed is {f'{_shown(low)} or more' if high is None else allowed}"
        if self.type == "expect_column_values_to_be_in_set":
            members = [_shown(member) for member in self.kwargs.get("value_set") or []]
            more = f" and {len(members) - 12} more" if len(members) > 12 else ""
            return f"{where} is {_shown(value)}, allowed are {', '.join(members[:12])}{more}"
        return f"{where} is {_shown(value)}, which breaks the rule {self.name!r}"


def load_suite(path: Path) -> list[dict[str, Any]]:
    """Read a suite from YAML.

    Raises
    ------
    BadConfig: no such file, no YAML, or an expectation without a type.
    """
    try:
        document = parsed(path.read_text(encoding="utf-8-sig"), path)
    except FileNotFoundError as error:
        raise BadConfig(f"{path}: there is no such file of expectations; mend `ingest.expectations`") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadConfig(f"{path}: the expectations cannot be read ({error}); save the file as UTF-8 text") from error
    entries = document.get("expectations", []) if isinstance(document, dict) else document
    if entries is None:
        return []
    if not isinstance(entries, list):
        raise BadConfig(f"{path}: write the rules as a list under `expectations:`")
    for number, entry in enumerate(entries, start=1):
        if not isinstance(entry, dict) or not isinstance(entry.get("type"), str):
            raise BadConfig(f"{path}, expectation {number}: the key 'type' is missing; add it")
    return entries


def plan(suite: list[dict[str, Any]], source: str = "the expectations") -> tuple[Rule, ...]:
    """Name the rules of a suite, and sort them by what they need to see.

    Parameters
    ----------
    source: the suite's file, for the error sentence.

    Raises
    ------
    BadConfig: a key, a severity or a value of `mostly` that does not fit, or two rules of one name.
    """
    rules: list[Rule] = []
    for number, entry in enumerate(suite, start=1):
        where = f"{source}, expectation {number}"
        unknown = set(entry) - {"type", "kwargs", "meta", "severity", "notes", "description", "id"}
        if unknown:
            raise BadConfig(f"{where}: the key {min(unknown)!r} is unknown; known are type, kwargs, meta, severity")
        kwargs = dict(entry.get("kwargs") or {})
        severity = str(entry.get("severity") or "critical")
        if severity not in {"critical", "warning", "info"}:
            raise BadConfig(f"{where}: severity must be critical, warning or info; it is {severity!r}")
        columns = _columns(kwargs)
        name = str((entry.get("meta") or {}).get("rule") or _default_name(entry["type"], columns))
        mostly = kwargs.get("mostly", 1.0)
        if not isinstance(mostly, (int, float)) or not 0 <= mostly <= 1:
            raise BadConfig(f"{where}: mostly must be a share between 0 and 1; it is {mostly!r}")
        if any(rule.name == name for rule in rules):
            raise BadConfig(f"{where}: two rules are called {name!r}; give each its own `meta: {{rule: NAME}}`")
        rules.append(Rule(name, entry["type"], kwargs, severity, float(mostly), _kind(entry["type"]), columns))
    return tuple(rules)


def unknown_type(name: str, known: list[str], source: str) -> BadConfig:
    """The error for an expectation that does not exist, naming the most similar one."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else "see Great Expectations' gallery for those that exist"
    return BadConfig(f"{source}: there is no expectation {name!r}; {hint}")


def _kind(name: str) -> Kind:
    if name in _UNIQUE:
        return "unique"
    if name in _COUNT:
        return "count"
    if name.startswith("expect_table_column") or name in {"expect_column_to_exist", "expect_column_type_to_be"}:
        return "columns"
    row = name.startswith(("expect_column_value", "expect_column_pair", "expect_multicolumn", "expect_select_column"))
    return "row" if row and name not in _WHOLE else "whole"


def _columns(kwargs: dict[str, Any]) -> tuple[str, ...]:
    named = [kwargs[key] for key in ("column", "column_A", "column_B") if isinstance(kwargs.get(key), str)]
    return tuple(named) or tuple(kwargs.get("column_list") or ())


def _default_name(kind: str, columns: tuple[str, ...]) -> str:
    short = kind.removeprefix("expect_column_values_").removeprefix("expect_column_").removeprefix("expect_")
    return f"{', '.join(columns)} {short.replace('_', ' ')}".strip()


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.10g}"
    return repr(value) if isinstance(value, str) else str(value)
