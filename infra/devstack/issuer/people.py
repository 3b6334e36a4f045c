"""The people of the demo. Their subjects are opaque and never change, as at a real issuer."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Person:
    """Someone who can sign in."""

    username: str
    subject: str
    groups: tuple[str, ...]

    @property
    def email(self) -> str:
        """An address in a domain that is reserved for examples."""
        return f"{self.username}@example.com"

    def get_user_id(self) -> str:
        """The subject, under the name Authlib asks for."""
        return self.subject


PEOPLE: dict[str, Person] = {
    person.username: person
    for person in (
        Person("alice", "4f0c2a9e-6d1b-4a53-9e0f-7c35b1d2a801", ("support",)),
        Person("bob", "b7e6c1d4-0a92-4c77-8f35-2d9b6e4f1c02", ("dba",)),
        Person("carol", "19d3f5a8-c4e7-4b16-a2d0-8e71f6b3c903", ("auditors",)),
        Person("dave", "e25a8b70-f3c1-49d8-b6e4-0f92c7d5a104", ("dba",)),
        Person("mallory", "8c61e0b3-57fa-4e29-93d7-a4b80e1f6d05", ()),
    )
}
