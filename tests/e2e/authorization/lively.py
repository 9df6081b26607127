"""A lively hour of two users and an administrator, with everything that has secrets, right and wrong."""

from __future__ import annotations

import base64
import json
import secrets
from typing import Any

import httpx
import jwt

from libs.common.messaging.streams import DEAD_LETTER_STREAM, EVENTS_STREAM
from tests.e2e.authorization.life import Life, done, until

_AUTH = "/api/v1/auth"
_ENVIRONMENTS = "/api/v1/environments"


async def live(life: Life, admin_email: str, admin_password: str) -> None:
    """All of it. Afterwards everything that was said has arrived where it is kept."""
    async with life.http:
        ada = await _sign_ins(life)
        await _keys_and_environment(life, ada)
        await _nonsense(life, ada["token"])
        await _another_password(life, ada)
        eve = await _leave(life)
        await _broken_event(life)
        await _administrate(life, admin_email, admin_password, ada)
        await _settled(life, eve)


async def _sign_ins(life: Life) -> dict[str, Any]:
    """Right and wrong; a refresh token that is used twice."""
    password = life.password()
    account = await life.register(password)
    name = account["username"]
    life.ledger.markers |= {"user": account["id"], "username": name}
    login = {"username_or_email": name, "password": life.password("wrong password")}
    done(await life.http.post(f"{_AUTH}/login", json=login), 401)
    login = {"username_or_email": life.password("password typed as a name"), "password": password}
    done(await life.http.post(f"{_AUTH}/login", json=login), 401)
    first = await life.log_in(name, password)
    refresh = {"refresh_token": first["refresh_token"]}
    second = life.tokens(await life.http.post(f"{_AUTH}/refresh", json=refresh))
    done(await life.http.post(f"{_AUTH}/refresh", json=refresh), 401)
    done(await life.http.post(f"{_AUTH}/refresh", json={"refresh_token": second["refresh_token"]}), 401)
    async with life.signed_in(name, password) as phone:
        claims = jwt.decode(phone.token, options={"verify_signature": False})
        life.ledger.markers["ended session"] = claims["sid"]
        done(await phone.http.post(f"{_AUTH}/logout"), 200)
        done(await phone.http.get(f"{_AUTH}/me"), 401)
    return {"account": account, "password": password, "token": phone.token}


async def _keys_and_environment(life: Life, ada: dict[str, Any]) -> None:
    """API keys, an environment with secrets, and tickets for it, used well and badly."""
    ledger = life.ledger
    async with life.signed_in(ada["account"]["username"], ada["password"]) as phone, life.listening(phone.token):
        key_id, key = await phone.make_key("read", "environments", "terminal")
        ledger.given("API key", key)
        ledger.markers["environment name"] = f"box-{secrets.token_hex(6)}"
        variables = {"TOKEN_OF_ADA": ledger.learn("variable", secrets.token_hex(16))}
        environment_id = await phone.create(ledger.markers["environment name"], environment_variables=variables)
        ledger.markers["environment"] = environment_id
        path = f"{_ENVIRONMENTS}/{environment_id}"
        # Shown in the terminal, where it belongs.
        assert variables["TOKEN_OF_ADA"] in await phone.run(environment_id, "echo $TOKEN_OF_ADA")
        changed = {"environment_variables": {"TOKEN_OF_ADA": ledger.learn("changed variable", secrets.token_hex(16))}}
        done(await phone.http.patch(path, json=changed), 200)
        async with ledger.client(life.stack.url, key) as program:
            for looked_at in (f"{_AUTH}/me", path, f"{path}/events", f"{path}/metrics", "/api/v1/regions"):
                done(await program.get(looked_at), 200)
            done(await program.post(f"{path}/restart"), 200)
            await phone.until(environment_id, "running")
            await _tickets(life, program, environment_id)
            await life.socket(f"/api/v1/ws/logs/{environment_id}?token={key}")
            done(await phone.http.get(f"{_AUTH}/api-keys"), 200)
            done(await phone.http.delete(f"{_AUTH}/api-keys/{key_id}"), 200)
            done(await program.get(f"{_AUTH}/me"), 401)
        await life.socket(f"/api/v1/ws/logs/{environment_id}?token={key}")
        done(await phone.http.get(f"{_AUTH}/sessions"), 200)


async def _tickets(life: Life, http: httpx.AsyncClient, environment_id: str) -> None:
    tickets = []
    for kind in ("terminal", "logs"):
        wanted = {"environment_id": environment_id, "kind": kind}
        answer = done(await http.post("/api/v1/ws/tickets", json=wanted), 201)
        tickets.append(life.ledger.given("ticket", answer["ticket"]))
    life.snapshots["redis while tickets are out"] = await life.stores.in_redis()
    for query in (f"ticket={tickets[0]}", f"ticket={tickets[0]}", f"ticket={tickets[1]}"):
        await life.socket(f"/api/v1/ws/terminal/{environment_id}?{query}")


async def _nonsense(life: Life, token: str) -> None:
    """Errors provoked with secrets in bodies, headers and URLs."""
    http, secret = life.http, life.password("secret in a bad request")
    quoted = json.dumps(secret)
    bad_bodies = [
        {"username": secret, "email": "x", "password": secret[:7]},
        {"username": "some-name", "email": secret, "password": [secret]},
        {"username": {"is": secret}, "email": f"@{secret}", "password": {"is": secret}, secret: secret},
    ]
    for path in ("register", "login", "refresh", "google", "reset-password", "verify-email", "forgot-password"):
        for body in bad_bodies:
            await http.post(f"{_AUTH}/{path}", json=body)
        json_type = {"Content-Type": "application/json"}
        await http.post(f"{_AUTH}/{path}", content=f'{{"password": {quoted}, {quoted}', headers=json_type)
        await http.post(f"{_AUTH}/{path}", content=f"password={secret}", headers={"Content-Type": "text/plain"})
    done(await http.post(f"{_AUTH}/google", json={"token": life.ledger.learn("Google token", "g" + secret)}), 503)
    basic = life.ledger.learn("name and password", base64.b64encode(f"ada:{secret}".encode()).decode())
    for authorization in (f"Basic {basic}", f"Bearer {secret}", f"Bearer dpk_{'0' * 32}_{secret}", secret):
        await http.get(_ENVIRONMENTS, headers={"Authorization": authorization})
    # Headers that do not fit, a place that is not there, a body that is too large: the gateway answers.
    await http.get(f"{_AUTH}/me?token={secret}", headers={"X-Long": "x" * 40_000})
    await http.post(f"{_AUTH}/login?token={secret}", content=secret.encode() * 600_000)
    for path in (f"{_AUTH}/me", "/nothing", "/api/v1/nothing", "/api/v1/ws/tickets", f"{_AUTH}/verify-email"):
        await http.get(path, params={"token": secret, "ticket": token})
    for path in (f"terminal/{'0' * 32}", f"logs/{'0' * 32}", "nothing"):
        for query in (f"token={secret}", f"ticket={secret}", f"token={token}", f"ticket=x&cols={secret}"):
            await life.socket(f"/api/v1/ws/{path}?{query}")


async def _another_password(life: Life, ada: dict[str, Any]) -> None:
    """Forgotten, chosen by a mailed link, and changed."""
    name, address = ada["account"]["username"], ada["account"]["email"]
    done(await life.http.post(f"{_AUTH}/forgot-password", json={"email": address}), 202)
    token = await life.mailed_token(address, "reset-password")
    done(await life.http.get(f"{_AUTH}/reset-password", params={"token": token}), 200)
    weak = {"token": token, "new_password": life.ledger.learn("weak password", f"weak{secrets.token_hex(6)}")}
    done(await life.http.post(f"{_AUTH}/reset-password", json=weak), 422)
    ada["password"] = life.password("reset password")
    done(await life.http.post(f"{_AUTH}/reset-password", json={"token": token, "new_password": ada["password"]}), 200)
    async with life.signed_in(name, ada["password"]) as phone:
        new = life.password("changed password")
        for current, status in ((life.password("wrong present password"), 403), (ada["password"], 200)):
            body = {"current_password": current, "new_password": new}
            done(await phone.http.post(f"{_AUTH}/change-password", json=body), status)
        bad = {"name": "more", "environment_variables": {"BAD NAME": life.ledger.learn("bad variable", new + "v")}}
        done(await phone.http.post(_ENVIRONMENTS, json=bad), 422)
    ada["password"] = new


async def _leave(life: Life) -> str:
    """An account with a key and an environment is deleted; its id."""
    password = life.password()
    account = await life.register(password)
    async with life.signed_in(account["username"], password) as phone:
        _, key = await phone.make_key("read")
        life.ledger.given("API key", key)
        value = life.ledger.learn("variable of a deleted user", secrets.token_hex(16))
        await phone.create("gone", environment_variables={"TOKEN_OF_EVE": value})
        for given, status in ((life.password("wrong password"), 403), (password, 202)):
            body = {"password": given}
            done(await phone.http.request("DELETE", f"{_AUTH}/me", json=body), status)
    account_id: str = account["id"]
    return account_id


async def _broken_event(life: Life) -> None:
    """Something for the dead letters."""
    marker = life.ledger.markers["dead letter"] = f"broken-{secrets.token_hex(8)}"
    await life.stores.jetstream.publish(f"devpocket.env.{marker}.created", b"{}", stream=EVENTS_STREAM)

    async def given_up() -> bool:
        return marker in (await life.stores.streams())[DEAD_LETTER_STREAM]

    await until(given_up)


async def _administrate(life: Life, address: str, password: str, ada: dict[str, Any]) -> None:
    """Reads all that an administrator can, and registers a cluster whose credentials are wrong."""
    environment_id = life.ledger.markers["environment"]
    user_id = ada["account"]["id"]
    life.ledger.learn("administrator's password", password)
    async with life.signed_in(address, password) as phone:
        http = phone.http
        token = life.ledger.learn("cluster token", secrets.token_hex(16))
        body = {"name": "lively", "region": "nowhere", "kubeconfig": _kubeconfig(token)}
        done(await http.post("/api/v1/clusters", json=body), 422)
        done(await http.post("/api/v1/clusters", json={**body, "kubeconfig": f"{token}: ["}), 422)
        done(await http.post("/api/v1/clusters", json={**body, "verify": False}), 201)
        done(await http.get("/api/v1/clusters/lively/health"), 200)
        for path in (
            f"/api/v1/users?q={ada['account']['username']}",
            f"/api/v1/audit?user={user_id}&limit=500",
            "/api/v1/audit/export",
            f"/api/v1/admin/events?env={environment_id}&limit=500",
            "/api/v1/admin/events/export",
            "/api/v1/admin/dead-letters",
            f"/api/v1/admin/environments/{environment_id}/timeline",
            f"/api/v1/admin/environments/{environment_id}/state",
            "/api/v1/clusters",
        ):
            done(await http.get(path), 200)
        done(await http.delete("/api/v1/clusters/lively?force=true"), 204)
        for letter in (await http.get("/api/v1/admin/dead-letters")).json()["dead_letters"]:
            done(await http.get(f"/api/v1/admin/dead-letters/{letter['id']}"), 200)
        for change in ({"subscription_plan": "starter"}, {"is_active": False}, {"is_active": True, "unlock": True}):
            done(await http.patch(f"/api/v1/users/{user_id}", json=change), 200)


async def _settled(life: Life, eve: str) -> None:
    """The last word about a deleted user was said, and the last request is in the logs."""
    request_ids = []
    for path in (f"{_AUTH}/me", _ENVIRONMENTS, "/api/v1/regions", "/api/v1/ws/tickets"):
        request_ids.append(f"last-request-{secrets.token_hex(8)}")
        method = "POST" if path.endswith("tickets") else "GET"
        await life.http.request(method, path, headers={"X-Request-ID": request_ids[-1]})

    async def erased() -> bool:
        return f"devpocket.user.{eve}.erased" in (await life.stores.streams())[EVENTS_STREAM]

    async def logged() -> bool:
        text = "".join(path.read_text(errors="replace") for path in (life.stack.data_dir / "logs").iterdir())
        # By the gateway and by the service.
        return all(text.count(request_id) >= 2 for request_id in request_ids)

    await until(erased)
    await until(logged)


def _kubeconfig(token: str) -> dict[str, Any]:
    return {
        "clusters": [{"name": "c", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "u", "user": {"token": token}}],
        "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
        "current-context": "x",
    }
