"""Which file of a tree imports which other one, and where that goes in a circle."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from review_facts import FileFacts, Import

Graph: TypeAlias = dict[str, dict[str, int]]
"""For each file those that it imports, each with the line of the first import."""


def import_graph(files: Sequence[FileFacts], package: Sequence[str] = ()) -> Graph:
    """Return which of *files* imports which of them when it is imported itself.

    `from a import b` leads to `a.b` if that is a module, else to `a`. That importing `a.b` first runs `a/__init__.py`
    is no edge: it would put every package that hands names on into a cycle, though Python has no trouble with it. Nor
    is a file's import of itself.

    Args:
        files: The facts of the tree's files.
        package: The dotted name of the tree's root, in parts, if that is a package itself.
    """
    names = _Names(frozenset(facts.path for facts in files), tuple(package))
    graph: Graph = {facts.path: {} for facts in files}
    for facts in files:
        for found in facts.imports:
            for target in names.targets(found, facts.path):
                if target != facts.path:
                    graph[facts.path].setdefault(target, found.line)
    return graph


def package_of(directory: Path) -> tuple[str, ...]:
    """Return the dotted name of *directory* in parts if it is a regular package, else nothing."""
    parts: list[str] = []
    here = directory.resolve()
    while (here / "__init__.py").is_file() and here.name:
        parts.insert(0, here.name)
        here = here.parent
    return tuple(parts)


def find_cycles(graph: Mapping[str, Collection[str]]) -> list[list[str]]:
    """Return the groups of nodes that reach each other, each sorted, in the order of their first nodes.

    Args:
        graph: For each node those that it leads to; one that is no key leads nowhere.

    Source:
        Robert Tarjan, "Depth-First Search and Linear Graph Algorithms", SIAM Journal on Computing, 1972.

    Example:
        >>> find_cycles({"a": ["b"], "b": ["a", "c"], "c": []})
        [['a', 'b']]
    """
    search = _Search(graph)
    for node in graph:
        search.visit(node)
    return sorted(search.found)


def shortest_cycle(graph: Mapping[str, Collection[str]], group: Collection[str]) -> list[str]:
    """Return a shortest way round in *group* as `[a, b, a]`, the first by name; empty if there is none."""
    members, best = frozenset(group), list[str]()
    for start in sorted(group):
        way = _way_back(graph, members, start)
        if way and (not best or len(way) < len(best)):
            best = way
    return best


@dataclass(frozen=True)
class _Names:
    """Finds the file that an import means, among the files of one tree."""

    paths: frozenset[str]
    package: tuple[str, ...]
    index: dict[str, list[tuple[str, str | None]]] = field(default_factory=dict[str, list[tuple[str, "str | None"]]])

    def __post_init__(self) -> None:
        for path in sorted(self.paths):
            for name, only_from in self._names(path):
                self.index.setdefault(name, []).append((path, only_from))

    def targets(self, found: Import, importer: str) -> Iterator[str]:
        if not found.names:
            parts = found.module.split(".")
            candidates = (self._absolute(parts[:length], importer) for length in range(len(parts), 0, -1))
            yield from [path for path in candidates if path][:1]
            return
        module = [part for part in found.module.split(".") if part]
        for name in found.names:
            path = self._resolve(found, [*module, name], importer) or self._resolve(found, module, importer)
            if path:
                yield path

    def _resolve(self, found: Import, parts: Sequence[str], importer: str) -> str | None:
        return self._relative(found.level, parts, importer) if found.level else self._absolute(parts, importer)

    def _relative(self, level: int, parts: Sequence[str], importer: str) -> str | None:
        folders = _folders(importer)
        if level - 1 > len(folders):
            return None
        base = [*folders[: len(folders) - level + 1], *parts]
        candidates = (os.path.join(*base, "__init__.py"), os.path.join("", *base) + ".py")
        return next((path for path in candidates if path in self.paths), None)

    def _absolute(self, parts: Sequence[str], importer: str) -> str | None:
        """The file of that name; of several the one nearest to *importer*, and none if it is not clear which."""
        here = _folders(importer)
        usable = [
            path
            for path, only_from in self.index.get(".".join(parts), ())
            if only_from in (None, os.path.dirname(importer))
        ]
        usable.sort(key=lambda path: -_shared(_folders(path), here))
        if len(usable) > 1 and _shared(_folders(usable[0]), here) == _shared(_folders(usable[1]), here):
            return None
        return usable[0] if usable else None

    def _names(self, path: str) -> Iterator[tuple[str, str | None]]:
        """The absolute names of a file, each with the only directory that may use it (None: all)."""
        folders = _folders(path)
        stem = os.path.basename(path).removesuffix(".py")
        own = [] if stem == "__init__" else [stem]
        start = len(folders)
        while start and os.path.join(*folders[:start], "__init__.py") in self.paths:
            start -= 1
        in_root = start == 0 and bool(self.package)
        from_package = [*(self.package if in_root else ()), *folders[start:], *own]
        if from_package:
            in_package = in_root or start < len(folders) or not folders
            yield ".".join(from_package), None if in_package else os.path.dirname(path)
        from_root = [*folders, *own]
        if from_root and from_root != from_package and not self.package:
            yield ".".join(from_root), None


def _folders(path: str) -> list[str]:
    folder = os.path.dirname(path)
    return folder.split(os.sep) if folder else []


def _shared(one: Iterable[str], other: Iterable[str]) -> int:
    count = 0
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        count += 1
    return count


@dataclass
class _Search:
    """One run of Tarjan's search."""

    graph: Mapping[str, Collection[str]]
    number: dict[str, int] = field(default_factory=dict[str, int])
    low: dict[str, int] = field(default_factory=dict[str, int])
    path: list[str] = field(default_factory=list[str])
    on_path: set[str] = field(default_factory=set[str])
    found: list[list[str]] = field(default_factory=list[list[str]])

    def visit(self, root: str) -> None:
        if root in self.number:
            return
        todo = [(root, self._enter(root))]
        while todo:
            node, rest = todo[-1]
            target = next(rest, None)
            if target is None:
                todo.pop()
                self._leave(node)
                if todo:
                    self._lower(todo[-1][0], self.low[node])
            elif target not in self.number:
                todo.append((target, self._enter(target)))
            elif target in self.on_path:
                self._lower(node, self.number[target])

    def _enter(self, node: str) -> Iterator[str]:
        self.number[node] = self.low[node] = len(self.number)
        self.path.append(node)
        self.on_path.add(node)
        return iter(self.graph.get(node, ()))

    def _lower(self, node: str, value: int) -> None:
        self.low[node] = min(self.low[node], value)

    def _leave(self, node: str) -> None:
        if self.low[node] != self.number[node]:
            return
        group = [self.path.pop()]
        while group[-1] != node:
            group.append(self.path.pop())
        self.on_path.difference_update(group)
        if len(group) > 1 or node in self.graph.get(node, ()):
            self.found.append(sorted(group))


def _way_back(graph: Mapping[str, Collection[str]], members: frozenset[str], start: str) -> list[str]:
    """A shortest way from *start* back to it through *members* (breadth first), or nothing."""
    came_from: dict[str, str] = {}
    todo = deque([start])
    while todo:
        node = todo.popleft()
        for target in sorted(members.intersection(graph.get(node, ()))):
            if target in came_from:
                continue
            came_from[target] = node
            if target == start:
                return _trail(came_from, start)
            todo.append(target)
    return []


def _trail(came_from: Mapping[str, str], start: str) -> list[str]:
    way, node = [start], came_from[start]
    while node != start:
        way.append(node)
        node = came_from[node]
    return [start, *reversed(way)]
