"""What the sessions of one gateway process share."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Mapping
from functools import partial

import msgspec

from gateway.analysts import Analysts
from gateway.catalog import Catalog, Change
from gateway.control import Control
from gateway.estimates import Estimates
from gateway.identity.oidc import OidcAuthenticator
from gateway.journal import Encoded, Journal, publish_schemas
from gateway.logins import Logins
from gateway.lookups import Lookups
from gateway.policy.decide import NoPolicies, Policies
from gateway.policy.sql import Analyser
from gateway.policy_files import Load, Watch
from gateway.recipients import recipients_of
from gateway.recorder import Clock
from gateway.sessions import Sessions
from schemas import VERSION, codec, topics
from schemas.events import (
    NOBODY,
    NONE_ID,
    ClassificationChanged,
    Client,
    Context,
    PolicyLoaded,
    StreamBegan,
)
from schemas.ids import Ids
from schemas.masking.detect import scrub
from schemas.sealing import KEY_BYTES, Sealer
from schemas.settings import Settings, SettingsError, Target


class Node:
    """Identity, policy, journal, keys and catalogs, made from settings.

    Raises SettingsError for what an operator must mend before anything can work.
    """

    def __init__(self, settings: Settings) -> None:
        if settings.oidc is None:
            raise SettingsError("oidc: an identity provider is needed to verify anyone")
        self.settings = settings
        self.targets: Mapping[str, Target] = {target.name: target for target in settings.targets}
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
        self.catalogs = {
            name: Catalog(target, settings.gateway.catalog_refresh_s, self)
            for name, target in self.targets.items()
        }
        self.estimates = {
            name: Estimates(target, self.catalogs[name]) for name, target in self.targets.items()
        }
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
        self._reconsidering: asyncio.Task[None] | None = None
        gateway = settings.gateway
        self._watch = Watch(gateway.policies, gateway.policies_reload_s, self._take_policies)

    def start(self) -> None:
        """Begin the background work."""
        self.journal.start()
        self._watch.start()
        self.control.start()
        for catalog in self.catalogs.values():
            catalog.start()

    async def close(self) -> None:
        """Stop it; what is queued for the journal is written first."""
        await self._watch.close()
        if self._reconsidering is not None:
            self._reconsidering.cancel()
        await self.control.close()
        await self.journal.close()
        for catalog in self.catalogs.values():
            await catalog.close()
        for estimates in self.estimates.values():
            estimates.close()
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
        if self.policies.digest != before and len(self.sessions):
            if self._reconsidering is not None:
                self._reconsidering.cancel()
            self._reconsidering = asyncio.create_task(self._reconsider())

    async def _reconsider(self) -> None:
        """Ask of everyone who is connected whether they may be, by the policies now in force."""
        for connection in self.sessions.all():
            connection.reconsider()
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
        for catalog in self.catalogs.values():
            if catalog.classification:
                await journal.publish_now(topics.CLASSIFICATIONS, *catalog.document())

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
