"""The desk: auditors say what they are about to do, and it is in the book before they do it.

    POST /unsealings  {"events": [id, ...], "reason": text}
    POST /shares     {"events": [id, ...], "keys": [id, ...], "quorum": name, "giver": name,
                      "receiver": name, "reason": text}
    POST /erasures    {"person": text, "sessions": [id, ...], "keys": [id, ...], "reason": text}

The person is known by the bearer token, as at the other doors. 201 means: the event is durable
in this gateway's chain (and, for an erasure, the keys' tombstones in gatebook.keys). Boxes are
not opened here and could not be; keys that open them stay with the auditors.
"""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final
from uuid import UUID

import msgspec
import structlog
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.health import HttpServer
from gateway.identity.principal import Principal, Reason, Refused
from gateway.journal import Encoded, NotDurable
from gateway.machine import Receipt
from gateway.node import Node
from gateway.recorder import Recorder
from schemas import codec, events, topics
from schemas.masking.detect import scrub
from schemas.settings import SettingsError

log = structlog.get_logger("desk")

_MAX_BODY: Final = 1024 * 1024
_MOST: Final = 10_000

_Ids = Annotated[list[UUID], msgspec.Meta(min_length=1, max_length=_MOST)]
_Name = Annotated[str, msgspec.Meta(pattern=r"\S", max_length=200)]
_Why = Annotated[str, msgspec.Meta(pattern=r"\S", max_length=1000)]


class Unsealing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which events, and why."""

    events: _Ids
    reason: _Why


class Sharing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose share, for whom, of which keys, to open what, and why."""

    events: _Ids
    keys: _Ids
    quorum: _Name
    giver: _Name
    receiver: _Name
    reason: _Why


class Erasure(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Whose originals, by which keys they are sealed, and why."""

    sessions: _Ids
    keys: _Ids
    reason: _Why
    person: Annotated[str, msgspec.Meta(max_length=200)] = ""


class _Answer(Exception):
    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status


class Desk:
    """The routes."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._settings = node.settings.gateway.desk

    def app(self) -> Starlette:
        """The ASGI application."""

        def route(path: str, work: Callable[[Request], Awaitable[bytes]]) -> Route:
            async def answer(request: Request) -> Response:
                try:
                    return JSONResponse({"recorded": str(UUID(bytes=await work(request)))}, 201)
                except _Answer as error:
                    return JSONResponse({"error": str(error)}, error.status)
                except NotDurable:
                    return JSONResponse({"error": "not recorded: the journal is away"}, 503)

            return Route(path, answer, methods=["POST"])

        return Starlette(
            routes=[
                route("/unsealings", self._unseal),
                route("/shares", self._share),
                route("/erasures", self._erase),
            ]
        )

    async def _unseal(self, request: Request) -> bytes:
        person = await self._known(request, self._settings.unsealers)
        asked = await _body(request, Unsealing)
        head = self._head(request, person)
        event = events.Unsealed(*head, _bytes(asked.events), _said(asked.reason))
        await self._record(event)
        return event.event_id

    async def _share(self, request: Request) -> bytes:
        person = await self._known(request, self._settings.unsealers)
        asked = await _body(request, Sharing)
        if asked.giver == asked.receiver:
            raise _Answer(400, "a share is given to another member")
        event = events.ShareGiven(
            *self._head(request, person),
            _bytes(asked.events),
            _bytes(asked.keys),
            _said(asked.quorum),
            _said(asked.giver),
            _said(asked.receiver),
            _said(asked.reason),
        )
        await self._record(event)
        return event.event_id

    async def _erase(self, request: Request) -> bytes:
        person = await self._known(request, self._settings.erasers)
        asked = await _body(request, Erasure)
        keys = _bytes(asked.keys)
        event = events.Erased(
            *self._head(request, person),
            _said(asked.person),
            _bytes(asked.sessions),
            keys,
            _said(asked.reason),
        )
        # First in the book, then done: what is destroyed without a word is tampering.
        await self._record(event)
        for key_id in keys:
            await self._node.journal.publish(topics.KEYS, key_id, None)
        return event.event_id

    async def _known(self, request: Request, groups: list[str]) -> Principal:
        """Who asks. Whoever is turned away is recorded, too."""
        scheme, _, token = request.headers.get("authorization", "").partition(" ")
        try:
            if scheme.lower() != "bearer":
                raise Refused(Reason.MISSING_CREDENTIAL)
            person = await self._node.authenticator.authenticate(token.strip())
        except Refused as refused:
            await self._turn_away(request, None, refused.reason.value, refused.sqlstate)
            raise _Answer(401, refused.message) from None
        if not set(groups) & set(person.groups):
            await self._turn_away(request, person, "not_permitted", "42501")
            raise _Answer(403, f"{person.name} may not do this")
        return person

    async def _turn_away(
        self, request: Request, person: Principal | None, reason: str, code: str
    ) -> None:
        node = self._node
        context = self._context(request, person)
        recorder = Recorder(context, node.own_sealer, node.clock, node.new_id)
        original = events.AuthenticationFailedOriginal("", "", {"path": request.url.path})
        await self._durable(recorder.authentication_failed(reason, code, original))

    def _context(self, request: Request, person: Principal | None) -> events.Context:
        gateway = self._node.settings.gateway
        host, port = request.client or ("", 0)
        return events.Context(
            session_id=self._node.new_id(),
            key_id=self._node.own_sealer.key_id,
            tenant=gateway.tenant,
            gateway=gateway.name,
            target="",
            principal=events.NOBODY
            if person is None
            else events.Principal(
                person.issuer,
                person.subject,
                person.name,
                list(person.groups),
                person.agent or "",
                person.actor_type,
            ),
            client=events.Client(host, port, "desk"),
        )

    def _head(self, request: Request, person: Principal) -> tuple[events.Context, bytes, int, int]:
        return self._node.head(self._context(request, person))

    async def _record(self, event: events.Event) -> None:
        await self._durable(codec.encode_alone(event))

    async def _durable(self, encoded: Encoded) -> None:
        """Raises NotDurable."""
        told: asyncio.Future[Receipt | None] = asyncio.get_running_loop().create_future()

        def tell(receipt: Receipt | None) -> None:
            if not told.done():  # a client that left has cancelled it
                told.set_result(receipt)

        self._node.journal.append([encoded], tell)
        if await told is None:
            raise NotDurable(topics.EVENTS)


def open_desk(node: Node) -> HttpServer | None:
    """The desk's server; None when nobody may use it. Raises SettingsError."""
    settings = node.settings.gateway.desk
    if not settings.unsealers and not settings.erasers:
        return None
    listener = node.settings.gateway.postgres
    if listener.certificate is None and not _is_loopback(settings.host):
        raise SettingsError("gateway.desk: without gateway.postgres.certificate, loopback only")
    return HttpServer(
        Desk(node).app(),
        settings.host,
        settings.port,
        certificate=listener.certificate,
        private_key=listener.private_key,
    )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _bytes(ids: list[UUID]) -> list[bytes]:
    return [value.bytes for value in ids]


def _said(text: str) -> str:
    # Recorded in clear: a reason may quote what it is about.
    return scrub(text)[0]


async def _body(request: Request, kind: Any) -> Any:
    received = bytearray()
    try:
        async for chunk in request.stream():
            received += chunk
            if len(received) > _MAX_BODY:
                raise _Answer(413, "at most 1 MiB")
        return msgspec.json.decode(received, type=kind)
    except ClientDisconnect:
        raise _Answer(400, "the request is incomplete") from None
    except msgspec.MsgspecError as error:
        raise _Answer(400, str(error)) from None
