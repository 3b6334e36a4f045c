"""`python -m infra.images [--base IMAGE] [NAME ...]`: build the container images."""

from __future__ import annotations

import argparse
import sys

from infra.images import base
from infra.images.build import build
from infra.images.docker import Docker, DockerFailed
from infra.images.locked import CannotInstall
from infra.images.recipes import RECIPES
from infra.kafka.jars import JarsUnavailable


def main() -> None:
    """Build what was asked for and print the images' names."""
    parser = argparse.ArgumentParser(prog="python -m infra.images", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(RECIPES)}")
    parser.add_argument(
        "--base", help=f"image with Python 3.11 and glibc 2.36 or newer (default: {base.PUBLIC})"
    )
    parser.add_argument("--tag", default="latest", help="tag of the images")
    arguments = parser.parse_args()
    if unknown := set(arguments.names) - RECIPES.keys():
        parser.error(f"there is no image {', '.join(sorted(unknown))}")

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    try:
        docker = Docker.find()
        foundation = arguments.base or base.ensure(docker, say)
        if docker.content(foundation) is None:
            docker.pull(foundation, 600)
        images = build(docker, foundation, say, arguments.names or RECIPES, arguments.tag)
    except (CannotInstall, DockerFailed, JarsUnavailable, base.NoBase, OSError) as error:
        sys.exit(f"images: {error}")
    print("\n".join(images.values()))


if __name__ == "__main__":
    main()
