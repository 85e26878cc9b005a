"""Who may do what in MLflow's registry: asked of its server by HTTP, as its administrator.

Everybody with a login may read. The worker's user makes runs and versions of its own; an approver may also move the
aliases `champion` and `previous` of any model, which a viewer and an operator may not.
"""

from __future__ import annotations

from typing import Any

from flows.credentials import PEOPLE, SERVICE_USER, Secrets
from flows.errors import Unavailable

ADMIN = "admin"
SPACE = "default"
"""MLflow's own word for the one registry of a server."""

GRANTS: dict[str, dict[str, str]] = {
    SERVICE_USER: {"experiment": "EDIT", "registered_model": "EDIT"},
    "viewer": {"experiment": "READ", "registered_model": "READ"},
    "operator": {"experiment": "READ", "registered_model": "READ"},
    "approver": {"experiment": "READ", "registered_model": "EDIT"},
}
"""Role -> kind of thing -> what is allowed on all of that kind."""


def create_users(address: str, kept: Secrets) -> list[str]:
    """Make the users and roles that are missing; returns the names of users made now.

    Raises
    ------
    Unavailable: the server does not answer, or refuses the administrator.
    """
    import httpx

    made: list[str] = []
    login = (ADMIN, kept.need("mlflow_admin_password"))
    with httpx.Client(base_url=address, auth=login, timeout=30.0, trust_env=False) as client:
        try:
            roles = {one["name"]: one for one in _ask(client, "GET", "3.0", "roles/list")["roles"]}
            for user in (SERVICE_USER, *PEOPLE):
                if _user_is_new(
                    client, user, kept.need(f"mlflow_{user}_password" if user == SERVICE_USER else f"{user}_password")
                ):
                    made.append(user)
                _give(client, user, roles.get(user))
        except httpx.HTTPError as error:
            status = getattr(getattr(error, "response", None), "status_code", type(error).__name__)
            raise Unavailable(
                f"MLflow at {address} does not let its administrator set up the users ({status}); see that it runs, "
                "and that the secret mlflow_admin_password is the one of its first start"
            ) from error
    return made


def _user_is_new(client: Any, user: str, password: str) -> bool:
    known = client.get("/api/2.0/mlflow/users/get", params={"username": user})
    if known.status_code == 200:
        # The secret counts: a new one there is made the password here.
        if client.get("/api/2.0/mlflow/users/current", auth=(user, password)).status_code == 401:
            _ask(client, "PATCH", "2.0", "users/update-password", json={"username": user, "password": password})
        return False
    _ask(client, "POST", "2.0", "users/create", json={"username": user, "password": password})
    return True


def _give(client: Any, user: str, role: dict[str, Any] | None) -> None:
    """The role of the user's name, with its grants, given to the user; what is there already stays."""
    if role is None:
        role = _ask(client, "POST", "3.0", "roles/create", json={"workspace": SPACE, "name": user})["role"]
    number = int(role["id"])
    there = _ask(client, "GET", "3.0", "roles/permissions/list", params={"role_id": str(number)})["role_permissions"]
    known = {one["resource_type"] for one in there if one["resource_pattern"] == "*"}
    for kind, permission in GRANTS[user].items():
        if kind not in known:
            grant = {"role_id": number, "resource_type": kind, "resource_pattern": "*", "permission": permission}
            _ask(client, "POST", "3.0", "roles/permissions/add", json=grant)
    held = _ask(client, "GET", "3.0", "users/roles/list", params={"username": user})["roles"]
    if number not in {int(one["id"]) for one in held}:
        _ask(client, "POST", "3.0", "roles/assign", json={"username": user, "role_id": number})


def _ask(client: Any, method: str, version: str, path: str, **options: Any) -> Any:
    reply = client.request(method, f"/api/{version}/mlflow/{path}", **options)
    reply.raise_for_status()
    return reply.json() if reply.content else {}
