"""Whether the tables agree with each other: one that lost its newest commits can be read without an error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flows.store import Store


@dataclass(frozen=True)
class Agreement:
    """What a comparison of the tables found.

    Attributes
    ----------
    files, accepted, quarantined: files that were taken in, and rows of them by what their records say.
    faults: what does not agree, in words; none where all does.
    nameless: rows of files that are not noted as taken in: an ingest runs, or was cut off.
    """

    files: int
    accepted: int
    quarantined: int
    faults: tuple[str, ...]
    nameless: int


def compare(store: Store) -> Agreement:
    """Whether each file's rows are in the tables to which its record says that they went; each scan has its reference.

    Raises
    ------
    Damaged: a table cannot be read.

    >>> import tempfile
    >>> from flows.store import Store
    >>> compare(Store(tempfile.mkdtemp()))
    Agreement(files=0, accepted=0, quarantined=0, faults=(), nameless=0)
    """
    found = store.sql(
        """
        SELECT f.name, f.kind, f.accepted, f.quarantined, coalesce(t.n, 0) AS taken, coalesce(q.n, 0) AS held
        FROM (SELECT * FROM files WHERE status = 'accepted' AND accepted IS NOT NULL) f
        LEFT JOIN (SELECT 'inspections' AS kind, _file, count(*) AS n FROM inspections GROUP BY _file
                   UNION ALL SELECT 'labels', _file, count(*) FROM labels GROUP BY _file) t
          ON t._file = f.sha AND t.kind = f.kind
        LEFT JOIN (SELECT _file, count(DISTINCT _row) AS n FROM quarantine GROUP BY _file) q ON q._file = f.sha
        ORDER BY f."at", f.name
        """
    )
    faults = []
    for row in found.to_dict("records"):
        if row["taken"] != row["accepted"]:
            faults.append(
                f"table {row['kind']} has {row['taken']} rows of {row['name']}, and {row['accepted']} were put there"
            )
        # More are held where labels were put aside beside the rows that they came with.
        if row["held"] < row["quarantined"]:
            faults.append(
                f"table quarantine has {row['held']} rows of {row['name']}, and {row['quarantined']} were put there"
            )
    bare = store.sql(
        "SELECT DISTINCT life FROM lives WHERE scan IS NOT NULL "
        'AND life NOT IN (SELECT life FROM "references" WHERE life IS NOT NULL) ORDER BY life'
    )
    faults += [f"table references has no rows of {life}, whose scan began on some" for life in bare["life"]]
    nameless = store.sql(
        "SELECT count(*) AS n FROM (SELECT _file FROM inspections UNION ALL SELECT _file FROM labels) "
        "WHERE _file NOT IN (SELECT sha FROM files WHERE status = 'accepted')"
    )
    return Agreement(
        files=len(found),
        accepted=int(found["accepted"].sum()),
        quarantined=int(found["quarantined"].sum()),
        faults=tuple(faults),
        nameless=int(nameless["n"].iloc[0]),
    )
