"""Typed settings: one YAML file, overridden by GATEBOOK_* variables.

Each plane reads the same file and takes its own section, so that a whole system is one
document (docs/configuration.md). An unknown key is an error: a misspelt setting that is
silently ignored would leave a default in place of what the operator decided.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

_POINTER = re.compile(r"(?:/(?:[^~/]|~[01])+)+")
_MOST_STARS = 2
"""Each makes what masks a document several times as long."""


class SettingsError(Exception):
    """A settings file that cannot be read or does not validate. Says which key and why."""


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretRef(_Section):
    """A secret by reference: exactly one of an environment variable or a file."""

    env: str | None = Field(None, description="Name of the environment variable that holds it.")
    file: Path | None = Field(
        None, description="File that holds it; a trailing newline is dropped."
    )

    def read(self) -> str:
        """The secret's text. Raises SettingsError naming the reference, never the value."""
        if (self.env is None) == (self.file is None):
            raise SettingsError("a secret needs exactly one of `env` and `file`")
        if self.env is not None:
            value = os.environ.get(self.env)
            if not value:
                raise SettingsError(f"environment variable {self.env} is not set")
            return value
        assert self.file is not None  # noqa: S101 (narrowing)
        try:
            return self.file.read_text().removesuffix("\n")
        except OSError as error:
            raise SettingsError(f"cannot read secret file {self.file}: {error.strerror}") from error


class Kafka(_Section):
    """How to reach Apache Kafka."""

    bootstrap_servers: str = Field("127.0.0.1:9092", description="host:port, comma separated.")
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_SSL", "SASL_PLAINTEXT"] = Field(
        "PLAINTEXT",
        description="As Kafka names it. PLAINTEXT only where the socket stays on the host.",
    )
    ca_file: Path | None = Field(None, description="CA that signed the brokers' certificates.")
    sasl_mechanism: Literal["SCRAM-SHA-256", "SCRAM-SHA-512", "PLAIN"] | None = Field(
        None, description="SASL mechanism for the SASL_* protocols."
    )
    username: str | None = Field(None, description="SASL user.")
    password: SecretRef | None = Field(None, description="SASL password, by reference.")


class Equality(_Section):
    """Look-ups of people who may not see a column, by a value that they know or guess: answered
    from the clear values.
    """

    reason: str = Field(
        ..., min_length=1, description="Why; recorded with each decision that permits one."
    )
    budget: int = Field(
        ...,
        ge=1,
        le=10_000,
        description="Distinct values of this column that one person may try in an hour, at one "
        "gateway node.",
    )


_MaskName = Literal["full", "partial", "email", "token", "year", "bucket", "null", "literal"]


class Masked(_Section):
    """How values are masked: for people who may not see them clear, and, where the mask has a
    meaning there, in the audit copy; in full otherwise.
    """

    mask: _MaskName = Field(
        "full",
        description="full: nothing is left; partial: the last four stay; email: x***@domain; "
        "token: equal values have equal tokens; year: of a date; bucket: a number rounded down to "
        "a multiple of `size`; null; literal: `text` in its place.",
    )
    text: str = Field("***", description="What `literal` shows.")
    size: int = Field(0, ge=0, description="Width of a `bucket`.")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.mask == "bucket" and self.size < 1:
            raise ValueError("a bucket needs a size")
        return self


class Part(Masked):
    """What is classified within a JSON column."""

    classification: str = Field(
        "", alias="class", description="pii, pci, phi, secret or a free name; else the column's."
    )


class Treatment(Masked):
    """What becomes of values and of what people do with them."""

    use: Literal["rewrite", "refuse"] = Field(
        "rewrite",
        description="What happens to a statement that uses the column otherwise than as an output: "
        "rewrite: it sees masked values; refuse: it is refused.",
    )
    copies: Literal["refuse", "allow"] = Field(
        "refuse",
        description="What happens to a statement of people who see the column clear that would "
        "copy its values to a column that is not classified, or to a file of the server.",
    )
    equality: Equality | None = Field(
        None,
        description="Look-ups by `column = value` or `column IN (values)` that are answered in "
        "clear; absent: none.",
    )

    @field_validator("equality", mode="before")
    @classmethod
    def _with_reason(cls, given: Any) -> Any:
        if isinstance(given, bool):
            raise ValueError("takes a `reason` and a `budget`, not true or false")
        return given


class Classified(Treatment):
    """A classified column. What it does not say is as its class says."""

    classification: str = Field(
        ..., alias="class", description="pii, pci, phi, secret or a free name."
    )
    parts: dict[str, Part] = Field(
        default_factory=dict,
        description="What of a `json` or `jsonb` column is classified, by JSON Pointer (RFC 6901): "
        "`/ssn`, `/cards/*/number`, where `*` is every element or member; absent: all of it.",
    )

    @field_validator("parts")
    @classmethod
    def _pointers(cls, parts: dict[str, Part]) -> dict[str, Part]:
        for number, pointer in enumerate(parts, 1):
            if not _POINTER.fullmatch(pointer):
                raise ValueError(f"no. {number} is not a JSON Pointer to a part: /name, /list/*")
            if pointer.split("/").count("*") > _MOST_STARS:
                raise ValueError(f"no. {number} has more than {_MOST_STARS} `*`")
        return parts

    @model_validator(mode="after")
    def _whole(self) -> Self:
        # A whole document is no address and has no last four.
        if self.parts and (self.mask != "full" or self.equality is not None):
            raise ValueError("a column with `parts` has no `mask` and no `equality` of its own")
        return self


class Target(_Section):
    """One database people reach through the gateway. Its name is the client's database name."""

    name: str = Field(..., description="What a client puts in `dbname`.")
    host: str = Field(..., description="Host of the PostgreSQL server.")
    port: int = Field(5432, ge=1, le=65535, description="Port of the PostgreSQL server.")
    database: str = Field(..., description="Database name at the server.")
    user: str = Field(..., description="Role the gateway signs in as; clients never learn it.")
    password: SecretRef = Field(..., description="Password of that role, by reference.")
    sslmode: Literal["disable", "require", "verify-full"] = Field(
        "verify-full",
        description="TLS to the server; `disable` only where the socket stays on the host.",
    )
    ca_file: Path | None = Field(
        None, description="CA for `verify-full`; the system's when absent."
    )
    person: Literal["setting", "application_name", "none"] = Field(
        "setting",
        description="How the server learns whose session it is: settings `gatebook.principal` and "
        "`gatebook.session`; a suffix of application_name; not at all (a pooler may refuse both).",
    )
    classes: dict[str, Treatment] = Field(
        default_factory=dict,
        description="How columns of a class are masked that do not say it themselves, by class.",
    )
    classified: dict[str, Classified] = Field(
        default_factory=dict, description="Classified columns, by `schema.table.column`."
    )
    classifiers: list[str] = Field(
        default_factory=list,
        description="Roles at the server whose comments `gatebook:<class>` on columns classify "
        "them; a comment counts where only these could have made it. Absent: none does.",
    )
    functions: list[str] = Field(
        default_factory=list,
        description="Functions of the target's own that read nothing classified, by name: who may "
        "not see everything may call these.",
    )
    token_key: SecretRef | None = Field(
        None, description="Key of the mask `token`, by reference; at least 32 bytes."
    )

    @model_validator(mode="before")
    @classmethod
    def _by_class(cls, given: Any) -> Any:
        """Each column with what its class says and it does not."""
        columns = given.get("classified") if isinstance(given, dict) else None
        classes = given.get("classes") if isinstance(given, dict) else None
        if not isinstance(columns, dict) or not isinstance(classes, dict):
            return given
        whole = {}
        for name, column in columns.items():
            whole[name] = _as_its_class(column, classes) if isinstance(column, dict) else column
        return {**given, "classified": whole}


def _as_its_class(column: dict[str, Any], classes: dict[str, Any]) -> dict[str, Any]:
    known = classes.get(str(column.get("class")))
    known = known if isinstance(known, dict) else {}
    parts = column.get("parts")
    if not isinstance(parts, dict) or not parts:
        return {**known, **column}

    def masked(part: Any) -> Any:
        if not isinstance(part, dict):
            return part
        of_class = classes.get(str(part.get("class", column.get("class"))))
        of_class = of_class if isinstance(of_class, dict) else {}
        shown = {key: each for key, each in of_class.items() if key in Masked.model_fields}
        return {**shown, **part}

    used = {key: each for key, each in known.items() if key in ("use", "copies")}
    return {**used, **column, "parts": {pointer: masked(part) for pointer, part in parts.items()}}


class Oidc(_Section):
    """The identity provider whose tokens are accepted."""

    issuer: str = Field(..., description="Issuer URL; must equal the token's `iss`.")
    audience: str = Field("gatebook", description="Must be among the token's `aud`.")
    algorithms: list[Literal["RS256", "RS384", "RS512", "PS256", "ES256", "ES384", "EdDSA"]] = (
        Field(
            ["RS256", "ES256"],
            description="Signature algorithms accepted; symmetric ones never are.",
        )
    )
    groups_claim: str = Field("groups", description="Claim that lists the person's groups.")
    name_claim: str = Field(
        "preferred_username", description="Claim shown as the actor; else `sub`."
    )
    ca_file: Path | None = Field(None, description="CA of the issuer's certificate.")
    jwks_refresh_s: float = Field(10.0, gt=0, description="Age after which keys are fetched again.")
    jwks_max_age_s: float = Field(
        3600.0, gt=0, description="How long known keys serve while the issuer cannot be reached."
    )
    leeway_s: float = Field(5.0, ge=0, description="Clock difference tolerated in exp and nbf.")


class Listener(_Section):
    """Where clients connect."""

    host: str = Field("127.0.0.1", description="Address to bind.")
    port: int = Field(6432, ge=0, le=65535, description="Port to bind; 0 takes a free one.")
    certificate: Path | None = Field(None, description="PEM certificate chain.")
    private_key: Path | None = Field(None, description="PEM private key.")
    cleartext_loopback: bool = Field(
        False, description="Accept tokens without TLS; refused unless `host` is a loopback address."
    )
    max_connections: int = Field(
        20_000, ge=1, description="Signed-in clients; further ones get 53300."
    )
    max_logins: int = Field(
        1000,
        ge=1,
        description="Connections that have not signed in yet; when one more comes, the one that "
        "has waited longest is closed.",
    )
    login_timeout_s: float = Field(15.0, gt=0, description="From accept to a verified identity.")
    prepared_max_bytes: int = Field(
        64 * 1024 * 1024,
        ge=1024,
        description="Texts, values and descriptions that one session's prepared statements and "
        "portals may hold here; further ones get 53200.",
    )


class Journal(_Section):
    """Durability before anything passes."""

    deadline_s: float = Field(
        5.0, gt=0, description="Then clients are told that nothing was executed."
    )
    max_bytes: int = Field(
        64 * 1024 * 1024, ge=1024, description="Unacknowledged bytes held at most."
    )
    chunk_bytes: int = Field(256 * 1024, ge=1024, description="Size of one Responded event's rows.")
    session_max_bytes: int = Field(
        4 * 1024 * 1024, ge=1024, description="Unacknowledged response bytes of one session."
    )


class Desk(_Section):
    """Where auditors have what they do recorded, before they do it: HTTPS with the certificate of
    `gateway.postgres`.
    """

    host: str = Field("127.0.0.1", description="Address to bind.")
    port: int = Field(0, ge=0, le=65535, description="Port to bind; 0 takes a free one.")
    unsealers: list[str] = Field(
        default_factory=list, description="Groups whose members may open originals."
    )
    erasers: list[str] = Field(
        default_factory=list, description="Groups whose members may have originals erased."
    )


class Gateway(_Section):
    """`python -m gateway`."""

    name: str = Field(
        "gateway-1", description="Name of this node, in every event; each node has its own."
    )
    tenant: str = Field("default", description="Tenant of its events.")
    postgres: Listener = Field(default_factory=Listener)  # type: ignore[arg-type]
    metrics_host: str = Field("127.0.0.1", description="Address of /metrics, /healthz, /readyz.")
    metrics_port: int = Field(0, ge=0, le=65535, description="Its port; 0 takes a free one.")
    policies: Path | None = Field(
        None, description="Folder of Cedar files; absent denies everything."
    )
    policies_reload_s: float = Field(
        1.0,
        gt=0,
        description="How often that folder is looked at, and what targets are made of: this file, "
        "`targets/*.yaml` in the folder, and files of secrets; changes are taken once all has been "
        "still that long.",
    )
    journal: Journal = Field(default_factory=Journal)  # type: ignore[arg-type]
    desk: Desk = Field(default_factory=Desk)  # type: ignore[arg-type]
    catalog_refresh_s: float = Field(
        30.0, gt=0, description="How often a target's catalog is read."
    )


class MaskProcessor(_Section):
    """`python -m processors mask`."""

    private_key: SecretRef | None = Field(
        None, description="X25519 private key (PEM), by reference."
    )
    group_id: str = Field("gatebook-mask", description="Consumer group.")
    state_dir: Path = Field(
        Path(".gatebook/mask"), description="Rebuildable cache of wrapped keys."
    )
    metrics_host: str = Field("127.0.0.1", description="Address of /metrics and /healthz.")
    metrics_port: int = Field(0, ge=0, le=65535, description="Its port; 0 takes a free one.")
    batch_records: int = Field(
        2000, ge=1, description="Records processed between two commits at most."
    )


class ClickHouseSink(_Section):
    """`python -m sinks clickhouse`."""

    url: str | None = Field(None, description="ClickHouse server; absent uses embedded chDB.")
    username: str = Field("default", description="User at that server.")
    password: SecretRef | None = Field(None, description="Its password, by reference.")
    path: Path = Field(Path(".gatebook/clickhouse"), description="Folder of embedded chDB.")
    database: str = Field(
        "audit", pattern=r"^[A-Za-z_][A-Za-z0-9_]*$", description="Database of the history."
    )
    group_id: str = Field("gatebook-clickhouse", description="Consumer group.")
    batch_rows: int = Field(10_000, ge=1, description="Rows of one insert at most.")
    linger_s: float = Field(0.25, ge=0, description="How long a batch may wait for more rows.")
    http_host: str = Field(
        "127.0.0.1", description="Address of the read-only ClickHouse HTTP endpoint."
    )
    http_port: int = Field(8123, ge=0, le=65535, description="Its port; 0 takes a free one.")
    http_token: SecretRef | None = Field(
        None, description="Token its readers present, by reference."
    )
    vault_token: SecretRef | None = Field(
        None,
        description="Token of those who read the vault's sealed originals, too; it must not be "
        "`http_token`. By reference.",
    )
    query_timeout_s: float = Field(60.0, gt=0, description="Longest a reader's query may run.")
    metrics_host: str = Field("127.0.0.1", description="Address of /metrics and /healthz.")
    metrics_port: int = Field(0, ge=0, le=65535, description="Its port; 0 takes a free one.")


class Recipient(_Section):
    """A public key that session keys are wrapped to."""

    name: str = Field(..., description="`mask` for the processor, or the auditor's name.")
    public_key: Path = Field(..., description="X25519 public key, PEM.")


class Member(_Section):
    """One of a quorum."""

    name: str = Field(..., description="The auditor's name.")
    public_key: Path = Field(..., description="X25519 public key, PEM.")


class Quorum(_Section):
    """People who open originals together, and none of them alone."""

    name: str = Field(..., description="The quorum's name, for instance `audit-board`.")
    threshold: int = Field(..., ge=2, description="How many of its members open together.")
    members: list[Member] = Field(
        ..., min_length=2, max_length=16, description="Each with a name and a key of his own."
    )

    @model_validator(mode="after")
    def _makes_sense(self) -> Quorum:
        if self.threshold > len(self.members):
            raise ValueError(f"{self.name}: {self.threshold} of {len(self.members)} members")
        if len({member.name for member in self.members}) < len(self.members):
            raise ValueError(f"{self.name}: two members have one name")
        return self


class Settings(BaseSettings):
    """The whole document."""

    model_config = SettingsConfigDict(
        env_prefix="GATEBOOK_", env_nested_delimiter="__", extra="forbid", frozen=True
    )

    kafka: Kafka = Field(default_factory=Kafka)  # type: ignore[arg-type]
    oidc: Oidc | None = Field(None)
    recipients: list[Recipient | Quorum] = Field(
        default_factory=list,
        description="Who can open sealed originals: the mask processor and auditors, each alone, "
        "and quorums, of which some members together.",
    )
    targets: Annotated[list[Target], Field(default_factory=list)]
    gateway: Gateway = Field(default_factory=Gateway)  # type: ignore[arg-type]
    mask: MaskProcessor = Field(default_factory=MaskProcessor)  # type: ignore[arg-type]
    clickhouse: ClickHouseSink = Field(default_factory=ClickHouseSink)  # type: ignore[arg-type]
    run_dir: Path | None = Field(
        None, description="Where a process writes the addresses it bound, as NAME.json."
    )

    @field_validator("targets")
    @classmethod
    def _unique_targets(cls, targets: list[Target]) -> list[Target]:
        names = [target.name for target in targets]
        twice = next((name for name in names if names.count(name) > 1), None)
        if twice is not None:
            raise ValueError(f"two targets are named {twice}")
        return targets

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Environment first: an operator overrides a file without editing it."""
        return env_settings, init_settings


def target_files(folder: Path) -> list[Path]:
    """Those of a folder of policies: a target each."""
    return sorted(folder.glob("targets/*.yaml"))


def files(path: Path, settings: Settings) -> list[Path]:
    """What the targets of `settings` are made of, as `load` reads it from `path`, and what they
    refer to: a change of them, or of one of these files, is a change of one of these.
    """
    folder = settings.gateway.policies
    secrets = [
        secret.file
        for target in settings.targets
        for secret in (target.password, target.token_key)
        if secret is not None and secret.file is not None
    ]
    return [path, *(target_files(folder) if folder else ()), *secrets]


def _with_target_files(document: dict[str, Any]) -> dict[str, Any]:
    """The document with the targets of `targets/NAME.yaml` in its folder of policies."""
    gateway = document.get("gateway")
    folder = gateway.get("policies") if isinstance(gateway, dict) else None
    folder = os.environ.get("GATEBOOK_GATEWAY__POLICIES", folder)
    given = document.get("targets") or []
    if not folder or not isinstance(given, list):
        return document
    found = [_target_of(path)[0] for path in target_files(Path(str(folder)))]
    return {**document, "targets": [*given, *found]} if found else document


def read_target(path: Path) -> Target:
    """A target of its own file, whose name it has unless it says another. Raises SettingsError."""
    return _target_of(path)[1]


def _target_of(path: Path) -> tuple[dict[str, Any], Target]:
    """What the file says, and what that is."""
    entry = {"name": path.stem, **_mapping(path)}
    try:
        return entry, Target.model_validate(entry)
    except ValidationError as error:
        raise SettingsError(f"{path}: {_wrong(error)}") from None


def _mapping(path: Path) -> dict[str, Any]:
    """A file's YAML. Raises SettingsError, which never quotes the file: it may hold a secret in the
    wrong place.
    """
    try:
        document = yaml.safe_load(path.read_text())
    except OSError as error:
        raise SettingsError(f"cannot read {path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{path} is not UTF-8") from None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f", line {mark.line + 1}" if mark else ""
        raise SettingsError(f"{path} is not YAML{where}") from None
    except (yaml.YAMLError, ValueError, RecursionError):
        # A date that does not exist is a ValueError.
        raise SettingsError(f"{path} is not YAML") from None
    if document is None:
        return {}
    if not isinstance(document, dict) or not all(isinstance(key, str) for key in document):
        raise SettingsError(f"{path} must hold a mapping")
    return document


def _wrong(error: ValidationError) -> str:
    """A rejected value may be a secret in the wrong place: names keys, not values."""
    return "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())


def load(path: Path | None) -> Settings:
    """Settings from a YAML file (or defaults) and the environment.

    Raises SettingsError with one line per wrong key.
    """
    document = _with_target_files(_mapping(path)) if path is not None else {}
    try:
        return Settings(**document)
    except ValidationError as error:
        raise SettingsError(_wrong(error)) from None
    except ValueError:
        raise SettingsError("settings do not validate") from None
