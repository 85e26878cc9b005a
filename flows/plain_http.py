"""Prefect's clients where its server is asked without TLS: not every authority of the world for each of them."""

from __future__ import annotations

from pathlib import Path

from flows.workspace import write_atomically

VARIABLE = "PREFECT_API_SSL_CERT_FILE"
END = "-----END CERTIFICATE-----\n"


def one_authority(api: str, folder: Path) -> dict[str, str]:
    """Environment for Prefect's programs that ask a server by plain HTTP.

    Each client of Prefect's loads all certificate authorities that there are, also where it never meets a certificate:
    20 ms, and .7 MB of a heap that does not shrink again, several times with every run. Where no TLS is spoken, one of
    them is as good as all; nothing that speaks TLS reads this variable.

    Parameters
    ----------
    api: the address of the server that these programs ask, and no other.
    folder: where the authority's certificate is kept.

    Returns
    -------
    The variable; nothing where the address is not plain HTTP.

    >>> one_authority("https://prefect.plant/api", Path("/none"))
    {}
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> [Path(path).read_text().count(END) for path in one_authority("http://127.0.0.1:4200/api", folder).values()]
    [1]
    """
    if not api.startswith("http://"):
        return {}
    import certifi

    path = folder / "one_authority.pem"
    write_atomically(path, certifi.contents().partition(END)[0] + END)
    return {VARIABLE: str(path)}
