"""The hard dependencies are four, and each dependency has a lower bound."""

import itertools
import re
import tomllib
from pathlib import Path
from typing import Any

HARD = {"anyio", "opentelemetry-api", "opentelemetry-sdk", "pydantic"}
EXTRAS = {"cli", "dev", "docs", "llm", "mcp", "otlp", "phoenix", "restate", "test", "testing"}


def names(requirements: list[str]) -> set[str]:
    """Return the names of the distributions in *requirements*."""
    return {re.split(r"[\s\[<>=!~;]", requirement, maxsplit=1)[0] for requirement in requirements}


def problems(project: dict[str, Any]) -> list[str]:
    """Return what is wrong with the table ``project``."""
    found = []
    if names(project["dependencies"]) != HARD:
        found.append(f"hard dependencies: {sorted(names(project['dependencies']))}")
    if set(project["optional-dependencies"]) != EXTRAS:
        found.append(f"extras: {sorted(project['optional-dependencies'])}")
    extras = itertools.chain.from_iterable(project["optional-dependencies"].values())
    for requirement in [*project["dependencies"], *extras]:
        if not requirement.startswith("mai-kernel[") and not re.search(r">=\d", requirement):
            found += [f"no lower bound: {requirement}"]
    return found


def test_the_dependencies_are_the_ones_agreed_on(root: Path) -> None:
    settings = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))
    assert problems(settings["project"]) == []


def test_a_planted_dependency_is_seen() -> None:
    project = {"dependencies": ["anyio>=4", "httpx"], "optional-dependencies": {"cli": ["typer[all]"]}}
    assert problems(project) == [
        "hard dependencies: ['anyio', 'httpx']",
        "extras: ['cli']",
        "no lower bound: httpx",
        "no lower bound: typer[all]",
    ]
