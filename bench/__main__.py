"""`python -m bench [NAME ...]`: every figure, or those named; each prints ratios of one run."""

from __future__ import annotations

import importlib
import pkgutil
import sys

import bench

_SHARED = {"__main__", "rig"}


def main() -> None:
    """Run the benchmarks named, or all."""
    names = sorted(m.name for m in pkgutil.iter_modules(bench.__path__) if m.name not in _SHARED)
    wanted = sys.argv[1:] or names
    unknown = set(wanted) - set(names)
    if unknown:
        sys.exit(f"no benchmark {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    print("modules: " + ("compiled" if bench.COMPILED.is_dir() else "pure Python"), flush=True)
    for name in wanted:
        module = importlib.import_module(f"bench.{name}")
        print(f"\n## {name}: {(module.__doc__ or '').splitlines()[0]}", flush=True)
        module.main()


if __name__ == "__main__":
    main()
