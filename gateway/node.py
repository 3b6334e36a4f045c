"""What the sessions of one gateway process share."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import msgspec

from gateway.analysts import Analysts
from gateway.catalog import Change
from gateway.control import Control
from gateway.identity.oidc import OidcAuthenticator
from gateway.journal import Encoded, Journal, publish_schemas
from gateway.logins import Logins
from gateway.lookups import Lookups
from gateway.policy.decide import NoPolicies, Policies
from gateway.policy.sql import Analyser
from gateway.policy_files import Load, PolicyWatch
from gateway.recipients import recipients_of
from gateway.recorder import Clock
from gateway.sessions import Cancellable, Sessions
from gateway.target_files import TargetFiles
from gateway.targets import Said, Targets
from gateway.watch import Watch
from schemas import VERSION, codec, topics
from schemas.events import (
    NOBODY,
    NONE_ID,
    ClassificationChanged,
    Client,
    Context,
    PolicyLoaded,
    StreamBegan,
    TargetsLoaded,
)
from schemas.ids import Ids
from schemas.masking.detect import scrub
from schemas.sealing import KEY_BYTES, Sealer
from schemas.settings import Settings, SettingsError


class Node:
    """Identity, policy, journal, keys and targets, made from settings; where they are of a file,
    its targets are taken again when it changes.

    Raises SettingsError for what an operator must mend before anything can work.
    """

    def __init__(self, settings: Settings, config: Path | None = None) -> None:
        if settings.oidc is None:
            raise SettingsError("oidc: an identity provider is needed to verify anyone")
        self.settings = settings
        self.new_id = Ids(time.time_ns, os.urandom)
        self.clock = Clock(time.time_ns, time.monotonic_ns)
        self.analyse = Analyser()
        self.analysts = Analysts()
        self.sessions = Sessions()
        self.logins = Logins(settings.gateway.postgres.max_logins)
        self.authenticator = OidcAuthenticator(settings.oidc)
        self.policies: Policies | NoPolicies = NoPolicies()
        self.recipients = recipients_of(settings)
        self.lookups = Lookups(os.urandom(KEY_BYTES))
        self.targets = Targets(settings.targets, settings.gateway.catalog_refresh_s, self)
        self.journal = Journal(
            settings.kafka,
            settings.gateway.journal,
            settings.gateway.name,
            self._prepare,
            partial(self._stream_began, self.new_id()),
        )
        self.control = Control(settings.kafka, settings.gateway.name, self.sessions, self.journal)
        self._own_key = self.new_id(), os.urandom(KEY_BYTES)
        self.own_sealer = Sealer(*self._own_key)
        self._telling: dict[str, asyncio.Task[None]] = {}
        gateway = settings.gateway
        every_s = gateway.policies_reload_s
        self._policy_watch = PolicyWatch(gateway.policies, every_s, self._take_policies)
        self._target_watch = None
        if config is not None:
            files = TargetFiles(config, settings)
            self._target_watch = Watch(every_s, files.files, files.load, self.targets.take)

    def start(self) -> None:
        """Begin the background work."""
        self.journal.start()
        self.targets.start()
        self._policy_watch.start()
        if self._target_watch is not None:
            self._target_watch.start()
        self.control.start()

    async def close(self) -> None:
        """Stop it; what is queued for the journal is written first."""
        await self._policy_watch.close()
        if self._target_watch is not None:
            await self._target_watch.close()
        for task in self._telling.values():
            task.cancel()
        await self.control.close()
        await self.journal.close()
        await self.targets.close()
        await self.analysts.close()
        await self.authenticator.aclose()

    async def new_sealer(self) -> Sealer:
        """A session's sealer; its key, wrapped to every recipient, is in the book.

        Raises NotDurable.
        """
        key_id, key = self.new_id(), os.urandom(KEY_BYTES)
        wraps = codec.encode_wraps(self.recipients.wrap(key_id, key))
        await self.journal.publish(topics.KEYS, key_id, wraps)
        return Sealer(key_id, key)

    def _take_policies(self, load: Load) -> None:
        """Use a set from the next request on. Its event is before the first that it decides."""
        before = self.policies.digest
        if load.policies is not None:
            self.policies = load.policies
        event = PolicyLoaded(
            *self.head(self._own_context()),
            "failed" if load.policies is None else "loaded",
            self.policies.digest,
            load.files,
            len(self.policies.rules),
            load.reason,
        )
        self.journal.append([codec.encode_alone(event)], None)
        if self.policies.digest != before:
            self._tell_all("reconsider", lambda connection: connection.reconsider())

    @property
    def durable(self) -> bool:
        """See gateway.targets.House."""
        return self.journal.healthy

    def record(self, said: Said) -> bool:
        """See gateway.targets.House."""
        # Recorded in clear; a name may be any text.
        added, changed, removed = ([scrub(name)[0] for name in names] for names in said.difference)
        event = TargetsLoaded(
            *self.head(self._own_context()),
            "failed" if said.reason else "loaded",
            said.digest,
            said.number,
            added,
            changed,
            removed,
            scrub(said.reason)[0],
        )
        return self.journal.append([codec.encode_alone(event)], None).accepted

    def tell(self) -> None:
        """See gateway.targets.House."""
        self._tell_all("targets", lambda connection: connection.target_over())

    def _tell_all(self, why: str, tell: Callable[[Cancellable], None]) -> None:
        """Tell every connection; the latest is what counts of what is told for one reason."""
        known = self._telling.get(why)
        if known is not None:
            known.cancel()
        self._telling[why] = asyncio.create_task(self._tell_each(tell))

    async def _tell_each(self, tell: Callable[[Cancellable], None]) -> None:
        for connection in self.sessions.all():
            tell(connection)
            await asyncio.sleep(0)  # a thousand of them must not hold up what they do

    async def publish(self, digest: bytes, value: bytes) -> None:
        """See gateway.catalog.Report."""
        await self.journal.publish(topics.CLASSIFICATIONS, digest, value)

    def changed(self, change: Change) -> None:
        """See gateway.catalog.Report."""
        before, now = change.digests
        context = msgspec.structs.replace(
            self._own_context(), target=change.target, classification=now
        )
        # Recorded in clear; a name may be any text.
        changes = [
            msgspec.structs.replace(
                each, column=scrub(each.column)[0], reason=scrub(each.reason)[0]
            )
            for each in change.changes
        ]
        event = ClassificationChanged(*self.head(context), change.version, before, changes)
        self.journal.append([codec.encode_alone(event)], None)

    async def _prepare(self, journal: Journal) -> None:
        await publish_schemas(journal)
        key_id, key = self._own_key
        wraps = codec.encode_wraps(self.recipients.wrap(key_id, key))
        await journal.publish_now(topics.KEYS, key_id, wraps)
        for document in self.targets.documents():
            await journal.publish_now(topics.CLASSIFICATIONS, *document)

    def _stream_began(self, instance: bytes, follows: str) -> Encoded:
        head = self.head(self._own_context())
        event = StreamBegan(*head, instance, follows, VERSION, self.policies.digest)
        return codec.encode_alone(event)

    def head(self, context: Context) -> tuple[Context, bytes, int, int]:
        """What every event begins with: context, id, and the two clocks."""
        clock = self.clock
        return context, self.new_id(), clock.wall() // 1000, clock.monotonic()

    def _own_context(self) -> Context:
        """Of what the gateway says of itself."""
        gateway = self.settings.gateway
        return Context(
            session_id=NONE_ID,
            key_id=NONE_ID,
            tenant=gateway.tenant,
            gateway=gateway.name,
            target="",
            principal=NOBODY,
            client=Client("", 0, ""),
        )
