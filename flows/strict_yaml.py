"""YAML that a person wrote: safe, and no key twice, where YAML would let the last one win without a word."""

from __future__ import annotations

from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml

from flows.errors import BadConfig


class _Strict(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: dict[Any, int] = {}
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode) or key.tag == "tag:yaml.org,2002:merge":
                continue
            if key.value in seen:
                said = f"the key {key.value!r} stands here for the second time, after line {seen[key.value]}"
                raise yaml.constructor.ConstructorError(None, None, said, key.start_mark)
            seen[key.value] = key.start_mark.line + 1
        return super().construct_mapping(node, deep=deep)


def parsed(text: str, path: Path) -> Any:
    """What a text says.

    Parameters
    ----------
    path: where it came from, for the sentence.

    Raises
    ------
    BadConfig: it is no YAML, or has a key twice in one place; the sentence names the line.

    >>> parsed("a: 1", Path("config.yaml"))
    {'a': 1}
    >>> parsed(chr(10).join(["a: 1", "b: 2", "a: 3"]), Path("config.yaml"))
    Traceback (most recent call last):
    flows.errors.BadConfig: config.yaml, line 3: the key 'a' stands here for the second time, after line 1; keep one
    """
    loader = _Strict(text)
    try:
        return loader.get_single_data()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{path}, line {mark.line + 1}" if mark is not None else str(path)
        if isinstance(error, yaml.constructor.ConstructorError) and "for the second time" in str(error.problem):
            raise BadConfig(f"{where}: {error.problem}; keep one") from error
        raise BadConfig(f"{where}: this is not valid YAML; mend the line and try again") from error
    finally:
        loader.dispose()
