"""What can go wrong, as one plain sentence and an exit status.

Every error that a person meets says what is wrong, where (file, row, column) and what to do.
"""

from __future__ import annotations


class PipelineError(Exception):
    """Base of all errors that end a command with a sentence instead of a traceback.

    Attributes
    ----------
    exit_status: what the command line returns for it.

    >>> str(BadInput("parts.csv is empty: there is nothing to read; export it again"))
    'parts.csv is empty: there is nothing to read; export it again'
    >>> BadInput("x").exit_status
    3
    """

    exit_status = 1


class BadConfig(PipelineError):
    """A wrong option, an unknown key in a config, a workspace that does not fit."""

    exit_status = 2


class BadInput(PipelineError):
    """Data that cannot be taken as it is."""

    exit_status = 3


class Refused(PipelineError):
    """A gate or a check said no; the state is as it was before."""

    exit_status = 4


class Unavailable(PipelineError):
    """A service or a resource (disk, port, server) is not there; trying again later may help."""

    exit_status = 1


class Damaged(PipelineError):
    """What was kept cannot be read any more: a torn or changed file of a table."""

    exit_status = 1
