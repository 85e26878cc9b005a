"""Can the database or server behind runs and models be reached? Asked directly, so that the answer comes in seconds."""

from __future__ import annotations

from flows.redaction import redacted

PATIENCE = 5
"""Seconds; MLflow itself would try for minutes."""


def problem(uri: str) -> str | None:
    """What keeps a tracking address from being used, with what to do; None where it answers.

    Parameters
    ----------
    uri: of a database or of an MLflow server.

    >>> problem("postgresql://me:secret@127.0.0.1:1/mlflow").split(":", maxsplit=1)[0]
    'the database at postgresql'
    """
    return _server_problem(uri) if uri.startswith(("http://", "https://")) else _database_problem(uri)


def _server_problem(uri: str) -> str | None:
    import httpx

    where = redacted(uri)
    try:
        # No proxy: a plant's proxy setting must not stand between this machine and its own servers.
        with httpx.Client(trust_env=False, timeout=PATIENCE) as client:
            client.get(f"{uri.rstrip('/')}/health").raise_for_status()
    except httpx.HTTPError as error:
        return f"the MLflow server at {where} does not answer ({type(error).__name__}); see that it runs"
    return None


def _database_problem(uri: str) -> str | None:
    import sqlalchemy
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    where = redacted(uri)
    try:
        address = sqlalchemy.make_url(uri)
        waiting = {"connect_timeout": PATIENCE} if address.get_backend_name() in {"postgresql", "mysql"} else {}
        engine = sqlalchemy.create_engine(address, poolclass=sqlalchemy.NullPool, connect_args=waiting)
        with engine.connect():
            return None
    except ArgumentError:
        return f"{where} is no address of a database; write it as postgresql://USER:PASSWORD@HOST/NAME"
    except ModuleNotFoundError as error:
        return f"the database at {where} needs the package {error.name}; install softad[production]"
    except SQLAlchemyError as error:
        said = str(error.__cause__ or error)
    if "password authentication failed" in said or "no password supplied" in said:
        return f"the database at {where} refuses the user name or password; set the right one in MLFLOW_TRACKING_URI"
    if "does not exist" in said:
        return f"the database at {where} is not there; make it (`createdb`), or mend its name in tracking.uri"
    return f"the database at {where} cannot be reached; see that it runs and that host and port are right"
