"""Performs a machine's commands on real sockets: the only place where I/O meets a protocol."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import struct
import time
from collections import deque
from collections.abc import Coroutine
from typing import Any, Final, cast
from uuid import UUID

import msgspec
import structlog
from prometheus_client import Counter

from gateway.analysts import By, NotAnalysed
from gateway.catalog import tls_context
from gateway.identity.principal import Principal, Refused
from gateway.journal import Entry, NotDurable
from gateway.large import Found, Reading
from gateway.logins import Login
from gateway.machine import (
    Abort,
    Analyse,
    Analysed,
    Ask,
    Authenticate,
    Authenticated,
    CancelRunning,
    CancelStatement,
    CatalogView,
    Close,
    Closed,
    Command,
    ConnectTarget,
    Decided,
    Decision,
    Expired,
    Idle,
    Input,
    Opened,
    Outcome,
    Receipt,
    Received,
    Record,
    Recorded,
    Request,
    Rows,
    RowsStopped,
    SaidAll,
    Send,
    Shutdown,
    Side,
    StartTls,
    StopRows,
    TargetConnected,
    TargetUnreachable,
    TlsStarted,
    Verdict,
    Withdrawn,
)
from gateway.machine import NotDurable as NotDurableInput
from gateway.machine import Refused as RefusedInput
from gateway.masking.copies import said
from gateway.masking.veil import Veil
from gateway.node import Node
from gateway.policy.decide import Moment, NoPolicies, Policies
from gateway.protocols.postgres import wire
from gateway.protocols.postgres.machine import PostgresMachine, Surroundings
from gateway.protocols.postgres.startup import Door
from gateway.protocols.postgres.upstream import Credential
from gateway.recorder import Recorder
from gateway.targets import Served
from schemas import events
from schemas.events import Client, Context
from schemas.masking.detect import scrub

_IDLE_S: Final = 0.005
_CONNECT_S: Final = 10.0
_CLOSE_S: Final = 5.0
_CANCEL_S: Final = 5.0
# A client that is still sending when it is told why it must go: how much more is taken and
# thrown away, for how long at most, and how long a silence ends the waiting.
_DRAIN_BYTES: Final = 64 * 1024 * 1024
_DRAIN_S: Final = 5.0
_QUIET_S: Final = 0.2
_SLICE: Final = 32 * 1024
_CHANGING: Final = frozenset({"alter", "classify", "create", "drop", "extension", "temporary"})
_OWN: Final = frozenset({"temporary"})
# They decide who could have made a comment that classifies.
_APPOINTING: Final = frozenset({"grant", "role"})
_NOT_KNOWN: Final = Decision(
    Verdict.DENY, (), "what is classified at the target is not known yet", "Try again."
)
_CLASSIFYING: Final = Decision(
    Verdict.DENY,
    (),
    "what is classified has changed in this transaction",
    "End the transaction, then read.",
)
_CATALOG: Final = "catalog is read"
_CANCELLED: Final = "canceling statement due to user request", "57014"
_CHANGES: Final = "what is known of the target changes too often: try again", "55000"
_ATTEMPTS: Final = 5
_FAIRNESS: Final = "others first"
_REQUESTS_HIGH: Final = 4 * 1024 * 1024
_NAME_CHARS: Final = 64
_EXPIRY_CHECK_S: Final = 60.0

_STATEMENTS = Counter("gatebook_statements_total", "Statements asked for.", ["decision"])
_ALLOWED, _DENIED = _STATEMENTS.labels("ALLOW"), _STATEMENTS.labels("DENY")
_REFUSED = Counter("gatebook_connections_refused_total", "Clients beyond max_connections.")
_ABORTED = Counter("gatebook_aborted_total", "Connections ended by a fault of ours.")

log = structlog.get_logger("driver")


class _Told(asyncio.Protocol):
    """A connection for a CancelRequest, which is answered by its end alone."""

    def __init__(self) -> None:
        self.over = asyncio.Event()

    def connection_lost(self, exc: Exception | None) -> None:
        self.over.set()


class _Target(asyncio.Protocol):
    """The target's socket."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def data_received(self, data: bytes) -> None:
        self._connection.feed(Received(Side.TARGET, data))

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        self._connection.feed(Closed(Side.TARGET))

    def pause_writing(self) -> None:
        self._connection.pause(Side.CLIENT, "target is slow")

    def resume_writing(self) -> None:
        self._connection.resume(Side.CLIENT, "target is slow")


class Connection(asyncio.Protocol):
    """One client's socket and everything that belongs to it."""

    def __init__(
        self, node: Node, tls: ssl.SSLContext | None, cleartext: bool, login: Login
    ) -> None:
        self._node = node
        self._login = login
        login.send_away = self._close
        self._tls = tls
        self._loop = asyncio.get_running_loop()
        self._transports: dict[Side, asyncio.Transport] = {}
        self._paused: dict[Side, set[str]] = {Side.CLIENT: set(), Side.TARGET: set()}
        self._inputs: deque[Input] = deque()
        self._handling = False
        self._idle_scheduled = False
        self._unread: deque[bytes] = deque()
        self._reading_on = False
        self._said_all = False
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: list[asyncio.TimerHandle] = []
        self._entries: dict[int, Entry] = {}
        self._recorder: Recorder | None = None
        self._principal: Principal | None = None
        self._tls_version = ""
        self._session_id = node.new_id()
        # What is offered from here on is for others: one target's settings are never mixed with
        # another's catalog.
        self._offered = offered = node.targets.now
        secret = node.sessions.add(self)
        self._application = ""
        self._address = ""
        # Statements under way that change the catalog, and whether some did that is not read yet.
        self._changing: set[bytes] = set()
        self._changed = False
        self._changed_for_all = False
        self._settles = False
        # Whether some change what is classified, and which of them still run.
        self._classifies = False
        self._classifying: set[bytes] = set()
        self._closed = False
        # What is being read aside for the next message.
        self._analysis: asyncio.Task[None] | None = None
        # The latest question that waits to be decided.
        self._asked: asyncio.Task[None] | None = None
        self._opened = self._withdrawn = False
        # What was asked to connect, and of which policies.
        self._visit: Request | None = None
        self._visited_under: Policies | NoPolicies | None = None
        self._veil: Veil | None = None
        self._veiled_by: tuple[Any, ...] = ()
        self._unrecorded_high = node.settings.gateway.journal.session_max_bytes
        self._drained = 0
        self._machine = PostgresMachine(
            Surroundings(
                door=Door(tls is not None, cleartext, frozenset(offered)),
                credential=self._credential,
                catalog=lambda name: offered[name].catalog.now.view,
                analyse=node.analyse,
                new_id=node.new_id,
                chunk_bytes=node.settings.gateway.journal.chunk_bytes,
                prepared_max_bytes=node.settings.gateway.postgres.prepared_max_bytes,
                cancel_secret=secret,
                session=str(UUID(bytes=self._session_id)),
                veil=self._see_through,
                nonce=node.new_id().hex(),
                resolve=lambda name, *asked: offered[name].catalog.now.resolve(*asked),
            )
        )

    @property
    def _served(self) -> Served | None:
        """What the client has asked for; None while that is not known, and where there is none."""
        return self._offered.get(self._machine.target)

    @property
    def _here(self) -> Served:
        """As `_served`, of a client that was let in."""
        return self._offered[self._machine.target]

    # --- the client's socket ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transports[Side.CLIENT] = cast("asyncio.Transport", transport)
        self._address = str((transport.get_extra_info("peername") or ("",))[0])
        if not self._timers:
            self._timers.append(self._loop.call_at(self._login.deadline, self._login_timed_out))
        session = transport.get_extra_info("ssl_object")
        if session is not None:
            if session.selected_alpn_protocol() != wire.ALPN:
                # Without ALPN a browser could be made to speak to us in TLS.
                self._close()
                return
            self._tls_version = session.version() or "TLS"
            self.feed(TlsStarted(self._tls_version))

    def data_received(self, data: bytes) -> None:
        if self._closed:
            self._drained += len(data)
            return
        settling = self._settling()
        if settling is not None:
            self._wait_for(settling)
        elif len(data) <= _SLICE and not self._unread:
            self.feed(Received(Side.CLIENT, data))
            return
        # A packet may hold thousands of statements: others are served in between.
        self._unread.extend(data[at : at + _SLICE] for at in range(0, len(data), _SLICE))
        self.pause(Side.CLIENT, _FAIRNESS)
        self._read_on()

    def _read_on(self) -> None:
        """Take the next slice of what has been received, unless something else must come first."""
        self._reading_on = False
        if self._closed or not self._unread or self._paused[Side.CLIENT] - {_FAIRNESS}:
            return
        self.feed(Received(Side.CLIENT, self._unread.popleft()))
        if self._unread:
            self._schedule_reading()
            return
        self.resume(Side.CLIENT, _FAIRNESS)
        if self._said_all:
            self.feed(SaidAll())

    def _schedule_reading(self) -> None:
        if not self._reading_on:
            self._reading_on = True
            self._loop.call_soon(self._read_on)

    def eof_received(self) -> bool:
        """Whether the stream stays open for the answers. In TLS it cannot."""
        if self._closed or self._machine.session is None or self._tls_version:
            return False
        self._said_all = True
        if not self._unread:
            self.feed(SaidAll())
        return True

    def connection_lost(self, exc: Exception | None) -> None:
        self._unread.clear()
        self.feed(Closed(Side.CLIENT))
        # What it asked before it left may still run; it has no more to read.
        self.resume(Side.TARGET, "client is slow")

    def pause_writing(self) -> None:
        self.pause(Side.TARGET, "client is slow")

    def resume_writing(self) -> None:
        self.resume(Side.TARGET, "client is slow")

    def pause(self, side: Side, why: str) -> None:
        """Stop reading one side, for a reason."""
        reasons = self._paused[side]
        if not reasons and side in self._transports:
            # A transport that is closing refuses; then there is nothing more to read.
            with contextlib.suppress(RuntimeError):
                self._transports[side].pause_reading()
        reasons.add(why)

    def resume(self, side: Side, why: str) -> None:
        """Read on, once no reason is left."""
        reasons = self._paused[side]
        if why in reasons:
            reasons.discard(why)
            if not reasons and side in self._transports:
                with contextlib.suppress(RuntimeError):
                    self._transports[side].resume_reading()
            if side is Side.CLIENT and self._unread:
                self._schedule_reading()

    def _settling(self) -> asyncio.Future[None] | None:
        """Done once what another session has changed is known, where something may be hidden."""
        served = self._served
        return served.catalog.settling if served and served.catalog.veils.hides else None

    def _wait_for(self, settled: asyncio.Future[None]) -> None:
        self.pause(Side.CLIENT, _CATALOG)
        settled.add_done_callback(lambda _: self.resume(Side.CLIENT, _CATALOG))

    # --- inputs and commands ---

    def feed(self, event: Input) -> None:
        """Give the machine an input; its commands are performed before the next one."""
        self._inputs.append(event)
        if self._handling:
            return
        self._handling = True
        try:
            while self._inputs:
                commands = self._machine.handle(self._inputs.popleft(), time.monotonic_ns())
                for command in commands:
                    self._perform(command)
        except Exception as error:
            # Inputs also come from the journal, which serves every other session, too.
            _ABORTED.inc()
            log.error("aborted", reason=f"{type(error).__name__} while performing commands")
            self._close()
        finally:
            self._handling = False
        self._balance()

    def _perform(self, command: Command) -> None:
        if isinstance(command, Send):
            transport = self._transports.get(command.side)
            if transport is not None and not transport.is_closing():
                transport.write(command.data)
        elif isinstance(command, Ask):
            self._ask(command)
        elif isinstance(command, Record):
            self._record(command)
        else:
            self._perform_rare(command)

    def _perform_rare(self, command: Command) -> None:
        match command:
            case StartTls():
                self._spawn(self._start_tls())
            case Authenticate():
                self._spawn(self._authenticate(command))
            case Analyse():
                self._analysis = self._spawn(self._analyse(command))
            case ConnectTarget():
                self._spawn(self._connect())
            case CancelStatement(process_id, secret):
                self._node.control.cancel(process_id, secret)
            case CancelRunning():
                self.cancel()
                self._timers.append(self._loop.call_later(_CANCEL_S, self.shut_down))
            case StopRows():
                self._spawn(self._stop_rows())
            case Close(drain):
                self._close(drain)
            case Abort(reason):
                _ABORTED.inc()
                log.error("aborted", reason=reason)
                self._close()

    def _balance(self) -> None:
        """Bound what waits: in either direction a full queue stops the reading before it."""
        session = self._machine.session
        if session is None or self._closed:
            return
        if (self._changed or self._classifies) and session.at_rest:
            self._settle()
        unrecorded, limit = session.unrecorded_bytes, self._unrecorded_high
        if unrecorded > limit:
            self.pause(Side.TARGET, "journal is slow")
        elif self._paused[Side.TARGET] and unrecorded <= limit // 2:
            self.resume(Side.TARGET, "journal is slow")
        unsent = session.unsent_requests
        if unsent > _REQUESTS_HIGH:
            self.pause(Side.CLIENT, "requests wait")
        elif self._paused[Side.CLIENT] and unsent <= _REQUESTS_HIGH // 2:
            self.resume(Side.CLIENT, "requests wait")
        if session.waiting and not self._idle_scheduled:
            self._idle_scheduled = True
            self._loop.call_later(_IDLE_S, self._idle)

    def _idle(self) -> None:
        self._idle_scheduled = False
        if not self._closed:
            self.feed(Idle())

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = self._loop.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        return task

    def _finished(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and task.exception() is not None:
            _ABORTED.inc()
            log.error("aborted", reason=f"{type(task.exception()).__name__} in a connection's task")
            self._close()

    # --- large texts ---

    async def _analyse(self, command: Analyse) -> None:
        """Have a text read by what is known of the target when the reading is there."""
        for _ in range(_ATTEMPTS):
            by, view = self._by()
            found: tuple[Found, ...] = ()
            why, sqlstate = "", ""
            try:
                found = await self._node.analysts.read(self._person, command.wanted, by)
            except NotAnalysed as error:
                why, sqlstate = error.text, error.sqlstate
            while (settling := self._settling()) is not None:
                await asyncio.wait([settling])
            if self._by() == (by, view):
                self._read(command, found, why, sqlstate)
                return
        self._read(command, (), *_CHANGES)

    def _read(self, command: Analyse, found: tuple[Found, ...], why: str, sqlstate: str) -> None:
        if not self._closed:
            by, view = self._by()
            reading = Reading(command.wanted, found, view, by.veil, why, sqlstate)
            self.feed(Analysed(command.ticket, reading))

    def _by(self) -> tuple[By, CatalogView]:
        target = self._machine.target
        catalog = self._here.catalog
        copies = catalog.veils.copies(catalog.knowledge, catalog.now.comments)
        veil = self._see_through()
        return By(target, catalog.now.resolve.snapshot, veil, copies), catalog.now.view

    @property
    def _person(self) -> str:
        assert self._principal is not None  # noqa: S101 (narrowing)
        return f"{self._principal.issuer}|{self._principal.subject}"

    # --- the journal ---

    def _ask(self, command: Ask) -> None:
        served = self._served
        connecting = any(request.action == "connect" for request in command.requests)
        if connecting and served and served.catalog.veils.hides and not served.catalog.known:
            # Nothing is recorded, nor shown, before what is classified is known, nor does anybody
            # know with which settings a session must begin.
            served.catalog.look(False).add_done_callback(lambda _: self._decide(command))
        elif not connecting and (self._node.policies.asks_estimates or self._asked is not None):
            self._asked = self._spawn(self._ask_with_estimates(command, self._asked))
        else:
            self._decide(command)

    async def _ask_with_estimates(self, command: Ask, before: asyncio.Task[None] | None) -> None:
        """Decide once it is known how many rows are expected, of what may be permitted at all.

        After `before`: a decision depends on what was permitted earlier, and so does the book.
        """
        requests = []
        estimates, known = self._here.estimates, self._here.catalog.knowledge
        for request in command.requests:
            few = msgspec.structs.replace(request, row_estimate=0)
            hopeful = any(self._permits(asked) for asked in (request, few))
            rows = await estimates.rows(request, self._person) if hopeful else -1
            requests.append(msgspec.structs.replace(request, row_estimate=rows))
        if before is not None:
            await asyncio.wait([before])
        if self._asked is asyncio.current_task():
            self._asked = None
        if self._here.catalog.knowledge is not known:
            # What is copied may be classified since.
            requests = [msgspec.structs.replace(each, copied=None) for each in requests]
        if not self._closed:
            self._decide(Ask(command.ticket, tuple(requests)))

    def _permits(self, request: Request) -> bool:
        assert self._principal is not None  # noqa: S101 (narrowing)
        moment = Moment(self._address, time.time())
        decision = self._node.policies.execute(
            self._principal, self._machine.target, self._application, request, moment
        )
        return decision.verdict is Verdict.ALLOW

    def _decide(self, command: Ask) -> None:
        recorder, principal = self._recorder, self._principal
        assert recorder is not None and principal is not None  # noqa: S101 (narrowing)
        policies = self._node.policies
        recorder.policy_digest = policies.digest
        self._note_classification(recorder)
        decisions: list[Decision] = []
        encoded: list[tuple[bytes, bytes]] = []
        target = self._machine.target
        served = self._served
        moment = Moment(self._address, time.time())
        for request in command.requests:
            if request.action == "connect" and not request.refusal:
                decision = policies.connect(
                    principal, target, self._application, request.replication, moment
                )
                recorder.connected_by = decision.policies
                self._visit, self._visited_under = request, policies
                if served and served.over:
                    decision = _over(served)
                elif served and served.catalog.comments_unread:
                    decision = _NOT_KNOWN
            elif served and served.over:
                # What is decided by it is in the book before the change; this would be after it.
                decision = _over(served)
            else:
                decision = policies.execute(principal, target, self._application, request, moment)
                if decision.verdict is Verdict.ALLOW:
                    decision = self._keep_together(decision, request)
                if request.tried and decision.verdict is Verdict.ALLOW:
                    person = (principal.issuer, principal.subject, target)
                    decision = self._node.lookups.judge(
                        decision, person, request.tried, time.monotonic()
                    )
                if self._classifies and decision.verdict is Verdict.ALLOW and _reads(request):
                    # Nobody else sees that yet, and so nor do we.
                    decision = _CLASSIFYING
                if not request.refusal:
                    self._note_change(request, decision.verdict is Verdict.ALLOW)
            (_ALLOWED if decision.verdict is Verdict.ALLOW else _DENIED).inc()
            decisions.append(decision)
            encoded += recorder.request(request, decision)
        ticket, decided = command.ticket, tuple(decisions)

        def tell(receipt: Receipt | None) -> None:
            if receipt is None:
                self.feed(NotDurableInput(ticket))
            else:
                self.feed(Decided(ticket, decided, receipt))

        self._node.journal.append(encoded, tell)

    def _keep_together(self, decision: Decision, request: Request) -> Decision:
        """`decision`, or a refusal of what would take values from what is known of them."""
        catalog = self._here.catalog
        copied = request.copied
        if copied is None or catalog.knowledge is None:
            copied = catalog.veils.copied(
                catalog.knowledge,
                catalog.now.comments,
                request.kinds,
                request.relations,
                request.statement,
            )
        return Decision(Verdict.DENY, decision.policies, said(copied)) if copied else decision

    def _note_classification(self, recorder: Recorder) -> None:
        if served := self._served:
            recorder.classified(served.catalog.classification)

    def _note_change(self, request: Request, allowed: bool) -> None:
        """Remember what will have changed the target's catalog once it is done."""
        facts, veils = request.facts, self._here.catalog.veils
        appoints = veils.by_comments and facts.ddl & _APPOINTING
        again = self._changed and request.kind == "transaction"
        if facts.ddl & _CHANGING or appoints or again:
            self._changing.add(request.statement_id)
            if facts.ddl - _OWN:
                self._changed_for_all = True
        if facts.classifies and allowed and veils.by_comments and request.action == "execute":
            self._classifies = True
            self._classifying.add(request.statement_id)
        if facts.unknown or facts.opaque:
            # It may be a matter of what another gateway's session has just created, or make
            # something itself. Nobody waits for that: such a call may be one of thousands.
            self._here.catalog.look_soon()

    def _catalog_changed(self, command: Record) -> None:
        """Let everybody's next words wait for what the client's last ones made."""
        session, fresh = self._machine.session, False
        for fact in command.facts:
            if isinstance(fact, Outcome) and fact.statement_id in self._changing:
                self._changing.discard(fact.statement_id)
                self._classifying.discard(fact.statement_id)
                fresh = fresh or fact.outcome == "completed"
        self._changed = self._changed or fresh
        if fresh and session is not None and not session.in_transaction and not session.at_rest:
            # It is asked on, or not committed yet. Who asks from now on waits for what is.
            self._look(committed=False)

    def _look(self, *, committed: bool = True) -> asyncio.Future[None]:
        return self._here.catalog.look(self._changed_for_all, committed)

    def _settle(self) -> None:
        """The client's transaction is over: read on once what it changed is known."""
        if self._settles or self._classifying:
            return
        self._settles, self._changed = True, False
        read = self._look()
        self._changed_for_all = False
        read.add_done_callback(self._settled)
        self._wait_for(read)

    def _settled(self, _: asyncio.Future[None]) -> None:
        session = self._machine.session
        self._settles = False
        if not self._classifying and session is not None and session.at_rest:
            self._classifies = False
        self._balance()

    def _record(self, command: Record) -> None:
        recorder = self._recorder
        if recorder is None:
            return
        self._note_classification(recorder)
        encoded = [recorder.fact(fact) for fact in command.facts]
        if self._changing or self._changed:
            self._catalog_changed(command)
        ticket = command.ticket
        if not self._opened and any(isinstance(fact, Opened) for fact in command.facts):
            self._opened = True
            for timer in self._timers:
                timer.cancel()
            self._check_expiry()
            self._node.sessions.know(self, *self._machine.cancel_key)
            if self._visited_under is not self._node.policies:
                self.reconsider()
            catalog = self._here.catalog
            if not catalog.known:
                self._wait_for(catalog.look(False))
        if not ticket:
            self._node.journal.append(encoded, None)
            return

        def tell(receipt: Receipt | None) -> None:
            self._entries.pop(ticket, None)
            if receipt is not None:
                self.feed(Recorded(ticket, receipt))
                return
            # What the client will not be told must not be told to the auditor as delivered.
            for entry in self._entries.values():
                entry.withdraw()
            self._entries.clear()
            self.feed(NotDurableInput(ticket))

        entry = self._node.journal.append(encoded, tell)
        if entry.tell is None:
            return
        for fact in command.facts:
            if not isinstance(fact, Rows):
                self._entries[ticket] = entry
                return

    # --- what may be seen ---

    def _see_through(self) -> Veil | None:
        """What hides classified columns from this person now; None when nothing does."""
        node, target, principal = self._node, self._machine.target, self._principal
        catalog = self._here.catalog
        veils = catalog.veils
        if not veils.hides or principal is None:
            return None
        knowledge, comments, policies = catalog.knowledge, catalog.now.comments, node.policies
        moment = Moment(self._address, time.time())
        now = (knowledge, policies, policies.passing(principal, moment.now_s))
        if self._veiled_by != now:
            columns = veils.columns(comments)
            seen = policies.see_clear(principal, target, self._application, columns, moment)
            self._veil = veils.of(knowledge, comments, seen)
            self._veiled_by = now
        return self._veil

    # --- tasks ---

    async def _start_tls(self) -> None:
        assert self._tls is not None  # noqa: S101 (narrowing)
        transport = self._transports[Side.CLIENT]
        try:
            upgraded = await self._loop.start_tls(
                transport, self, self._tls, server_side=True, ssl_handshake_timeout=10.0
            )
        except (OSError, ssl.SSLError, ConnectionError, TimeoutError):
            self._close()
            return
        if upgraded is None:
            self._close()
            return
        self._transports[Side.CLIENT] = upgraded
        session = upgraded.get_extra_info("ssl_object")
        self._tls_version = (session.version() if session else None) or "TLS"
        self.feed(TlsStarted(self._tls_version))

    async def _authenticate(self, command: Authenticate) -> None:
        node = self._node
        # A name may hold anything; what is recorded in clear is scrubbed of classified values.
        self._application = scrub(command.application)[0][:_NAME_CHARS]
        target = command.database if command.database in self._offered else ""
        if self._full():
            return
        try:
            principal = await node.authenticator.authenticate(command.credential)
        except Refused as refused:
            self._refuse(command, target, refused)
            return
        if self._closed or self._full():
            # Others may have taken the last places meanwhile.
            return
        self._login.over()
        node.sessions.sign_in(self)
        try:
            sealer = await node.new_sealer()
        except NotDurable:
            self.feed(NotDurableInput(0))
            return
        who = events.Principal(
            principal.issuer,
            principal.subject,
            principal.name,
            list(principal.groups),
            principal.agent or "",
            principal.actor_type,
        )
        self._principal = principal
        context = self._context(target, who, sealer.key_id)
        self._recorder = Recorder(context, sealer, node.clock, node.new_id)
        self._recorder.tls = self._tls_version
        self._recorder.token_id = principal.token_id or ""
        self.feed(Authenticated(principal))

    def _full(self) -> bool:
        """Whether there is no place; the client is told."""
        limit = self._node.settings.gateway.postgres.max_connections
        if self._node.sessions.signed_in < limit:
            return False
        _REFUSED.inc()
        self.feed(RefusedInput("53300", "sorry, too many clients already"))
        return True

    def _refuse(self, command: Authenticate, target: str, refused: Refused) -> None:
        node = self._node
        sealer = node.own_sealer
        context = self._context(target, events.NOBODY, sealer.key_id)
        recorder = Recorder(context, sealer, node.clock, node.new_id)
        original = events.AuthenticationFailedOriginal(
            command.user, command.database, command.parameters
        )
        encoded = recorder.authentication_failed(refused.reason.value, refused.sqlstate, original)

        def tell(receipt: Receipt | None) -> None:
            if receipt is None:
                self.feed(NotDurableInput(0))
            else:
                self.feed(RefusedInput(refused.sqlstate, refused.message))

        node.journal.append([encoded], tell)

    def _context(self, target: str, principal: events.Principal, key_id: bytes) -> Context:
        peer = self._transports[Side.CLIENT].get_extra_info("peername") or ("", 0)
        gateway = self._node.settings.gateway
        return Context(
            session_id=self._session_id,
            key_id=key_id,
            tenant=gateway.tenant,
            gateway=gateway.name,
            target=target,
            principal=principal,
            client=Client(str(peer[0]), int(peer[1]), self._application),
            classification=self._here.catalog.classification if target else b"",
        )

    def _credential(self, name: str) -> Credential:
        target = self._offered[name].target
        return Credential(
            database=target.database,
            user=target.user,
            password=target.password.read(),
            encrypted=target.sslmode != "disable",
            person=target.person,
        )

    async def _connect(self) -> None:
        if self._here.over:
            # Since it was decided; the others are told by who has changed it.
            self.target_over()
            return
        target = self._here.target
        try:
            context = tls_context(target)
            async with asyncio.timeout(_CONNECT_S):
                transport = await open_target(target.host, target.port, context, _Target(self))
        except (OSError, TimeoutError, ssl.SSLError, asyncio.IncompleteReadError) as error:
            log.warning("target_unreachable", target=target.name, error=type(error).__name__)
            self.feed(TargetUnreachable(type(error).__name__))
            return
        if self._closed:
            transport.abort()
            return
        self._transports[Side.TARGET] = transport
        self.feed(TargetConnected())

    def _check_expiry(self) -> None:
        """End the session when its token expires, or its key is withdrawn by the issuer."""
        assert self._principal is not None  # noqa: S101 (narrowing)
        left = self._principal.expires_at - time.time()
        pause = max(0.0, min(left, _EXPIRY_CHECK_S))
        self._timers = [self._loop.call_later(pause, self._recheck)]

    def _recheck(self) -> None:
        if not self._closed:
            self._spawn(self._recheck_principal())

    async def _recheck_principal(self) -> None:
        assert self._principal is not None  # noqa: S101 (narrowing)
        try:
            await self._node.authenticator.recheck(self._principal)
        except Refused:
            self.feed(Expired())
            return
        if self._principal.expires_at > time.time():
            self._check_expiry()
        else:
            self._timers = [self._loop.call_later(1.0, self._recheck)]

    def _login_timed_out(self) -> None:
        log.info("login_timed_out")
        if self._machine.connecting:
            # The person was let in, and waits for a target that accepts and says nothing.
            self.feed(TargetUnreachable("timeout"))
        else:
            self._close()

    # --- endings ---

    def cancel(self) -> None:
        """See gateway.sessions.Cancellable."""
        session = self._machine.session
        being_read = session.analysing if session is not None else None
        if being_read is not None and self._analysis is not None:
            # Nothing else of it is under way.
            self._analysis.cancel()
            self._read(being_read, (), *_CANCELLED)
        elif self._machine.target_key[0] and not self._closed:
            self._spawn(self._cancel())

    async def _cancel(self) -> None:
        await self._cancel_at_target()

    async def _stop_rows(self) -> None:
        settled = await self._cancel_at_target()
        if not self._closed:
            self.feed(RowsStopped(settled))

    async def _cancel_at_target(self) -> bool:
        """Have the target cancel what runs; whether that has come to pass, or never will.

        A server closes the connection once it has signalled the session.
        """
        target = self._here.target
        process_id, secret = self._machine.target_key
        body = struct.pack(">II", wire.CANCEL_REQUEST, process_id) + secret
        told = _Told()
        transport: asyncio.Transport | None = None
        try:
            async with asyncio.timeout(_CONNECT_S):
                transport = await open_target(target.host, target.port, tls_context(target), told)
                transport.write(struct.pack(">I", len(body) + 4) + body)
                await told.over.wait()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return transport is None
        finally:
            if transport is not None:
                transport.abort()
        return True

    def shut_down(self) -> None:
        """See gateway.sessions.Cancellable."""
        self.feed(Shutdown())

    def reconsider(self) -> None:
        """See gateway.sessions.Cancellable."""
        recorder, principal, visit = self._recorder, self._principal, self._visit
        if self._closed or not self._opened or self._withdrawn:
            return  # one that is not open yet is asked when it is
        if recorder is None or principal is None or visit is None:
            return
        policies = self._visited_under = self._node.policies
        moment = Moment(self._address, time.time())
        decision = policies.connect(
            principal, self._machine.target, self._application, visit.replication, moment
        )
        if decision.verdict is Verdict.ALLOW:
            return
        self._withdrawn = True
        recorder.policy_digest = policies.digest
        asked = msgspec.structs.replace(visit, statement_id=self._node.new_id())
        ended = Outcome(asked.statement_id, "denied", "", "57P01", 0, 0, 0, {}, ())
        encoded = [*recorder.request(asked, decision), recorder.fact(ended)]
        # Without a receipt, too: what may not go on does not wait for the journal.
        text = f"permission to connect was withdrawn: {decision.reason}"
        self._node.journal.append(encoded, lambda _: self.feed(Withdrawn(text, "not_permitted")))

    def target_over(self) -> None:
        """See gateway.sessions.Cancellable."""
        served = self._served
        if not served or not served.over or self._closed or self._withdrawn:
            return
        if self._machine.connecting or self._machine.session is not None:
            # Who is not let in yet is refused by `_decide`.
            self._withdrawn = True
            self.feed(Withdrawn(f'target "{served.target.name}" {served.over}', "target_changed"))

    def _close(self, drain: bool = False) -> None:
        if self._closed:
            return
        self._closed = True
        if self._changing or self._changed:
            # It may have been done, and it may be committed.
            self._look()
        if self._analysis is not None:
            self._analysis.cancel()
        self._login.over()
        self._node.sessions.remove(self)
        for timer in self._timers:
            timer.cancel()
        for side, transport in self._transports.items():
            if drain and side is Side.CLIENT and not transport.is_closing():
                self._drain(transport)
            else:
                self._let_go(transport)

    def _let_go(self, transport: asyncio.Transport) -> None:
        transport.close()
        # A peer that does not read would keep what was sent to it, and us, for ever.
        self._loop.call_later(_CLOSE_S, transport.abort)

    def _drain(self, client: asyncio.Transport) -> None:
        """Read what the client is still sending, and throw it away: see Close."""
        self._unread.clear()
        self._paused[Side.CLIENT].clear()
        with contextlib.suppress(RuntimeError):
            client.resume_reading()
        if client.can_write_eof():
            client.write_eof()
        deadline = self._loop.time() + _DRAIN_S

        def look(before: int) -> None:
            going_on = before < self._drained <= _DRAIN_BYTES and self._loop.time() < deadline
            if going_on and not client.is_closing():
                self._loop.call_later(_QUIET_S, look, self._drained)
            else:
                self._let_go(client)

        self._loop.call_later(_QUIET_S, look, self._drained)


def _over(served: Served) -> Decision:
    return Decision(Verdict.DENY, (), f"the target {served.over}")


def _reads(request: Request) -> bool:
    facts = request.facts
    return bool(facts.tables_read or facts.columns_read or facts.unknown or facts.executes)


async def open_target(
    host: str, port: int, context: ssl.SSLContext | None, protocol: asyncio.BaseProtocol
) -> asyncio.Transport:
    """A socket to a PostgreSQL server, in TLS where `context` is given. Raises OSError."""
    loop = asyncio.get_running_loop()
    if context is None:
        transport, _ = await loop.create_connection(lambda: protocol, host, port)
        return transport
    reader, writer = await asyncio.open_connection(host, port)
    try:
        writer.write(struct.pack(">II", 8, wire.SSL_REQUEST))
        if await reader.readexactly(1) != b"S":
            raise ConnectionRefusedError("the target does not speak TLS")
        upgraded = await loop.start_tls(writer.transport, protocol, context, server_hostname=host)
    except (OSError, asyncio.IncompleteReadError):
        writer.transport.abort()
        raise
    if upgraded is None:
        raise ConnectionRefusedError("the target ended the handshake")
    return upgraded
