"""What `python -m tests.containers` tells the tests it starts, in environment variables."""

from __future__ import annotations

import os
from collections.abc import Mapping

import pytest

CHOSEN = "GATEBOOK_TEST_ENVIRONMENT"
"""`containers`: Kafka and PostgreSQL run in containers. Absent: embedded ones."""
IMAGE = "GATEBOOK_TEST_IMAGE_"
"""Followed by a recipe's name: the image to run."""
UNUSABLE = "GATEBOOK_TEST_NO_CONTAINERS"
"""Why no container can be run."""


def for_tests(images: Mapping[str, str], host: str | None) -> dict[str, str]:
    """Variables for tests that are to use these images at this engine."""
    return {
        CHOSEN: "containers",
        **({"DOCKER_HOST": host} if host else {}),
        **{IMAGE + name.upper(): image for name, image in images.items()},
        # testcontainers' own reaper is an image that may not be had here.
        "TESTCONTAINERS_RYUK_DISABLED": "true",
        "TESTCONTAINERS_CONNECTION_MODE": "docker_host",
        "TESTCONTAINERS_HOST_OVERRIDE": "127.0.0.1",
    }


def chosen() -> bool:
    """Whether tests run against containers."""
    return os.environ.get(CHOSEN) == "containers"


def image(name: str) -> str:
    """Name of a built image; skips the test when there are no containers."""
    found = os.environ.get(IMAGE + name.upper())
    if found is None:
        pytest.skip(os.environ.get(UNUSABLE, "needs images: make test-containers"))
    return found
