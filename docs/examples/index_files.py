"""Hashes every file below a folder, and tells which are there more than once; a killed job goes on where it was.

    mai run docs/examples/index_files.py:index FOLDER --durable runs.db --run-id FOLDER
    mai run docs/examples/index_files.py:index FOLDER --save SHA256SUMS --durable runs.db --run-id FOLDER

Under a durable engine each file is a step of its own, so that after a crash only those are read again that were being
read. A file that has changed since it was read keeps the hash that it had: a new run id begins anew. What is saved can
be checked by ``sha256sum -c`` in the folder.

    list the files >> hash each, a few at a time >> put those of one content together >> save
"""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from pathlib import Path

from pydantic import BaseModel

from mai import Module, module

BLOCK_BYTES = 1 << 20


class Hashed(BaseModel):
    """One file: its content by hash, or why it could not be read."""

    path: str
    bytes: int = 0
    sha256: str = ""
    problem: str = ""


class Copies(BaseModel):
    """Files of one content."""

    paths: list[str]
    bytes: int


class Index(BaseModel):
    """What is in a folder. The copies that take the most room come first."""

    folder: Path
    files: list[Hashed]
    copies: list[Copies]
    problems: list[Hashed]

    def __str__(self) -> str:
        total = sum(file.bytes for file in self.files)
        lines = [f"{len(self.files)} files with {total:,} bytes in {self.folder}"]
        lines += [f"{len(one.paths)} times {one.bytes:,} bytes: {', '.join(one.paths)}" for one in self.copies]
        return "\n".join([*lines, *(f"not read: {file.path}: {file.problem}" for file in self.problems)])


class Listing(BaseModel):
    """The files of a folder, whose path is absolute: the next process may be started elsewhere."""

    folder: Path
    paths: list[str]


@module
def list_files(folder: Path) -> Listing:
    """List the regular files below *folder*, sorted; links are not followed."""
    if not folder.is_dir():
        raise NotADirectoryError(f"Cannot index {str(folder)!r}: it is not a directory")
    found: list[str] = []
    for place, _, names in os.walk(folder):
        paths = [Path(place, name) for name in names]
        found += [path.relative_to(folder).as_posix() for path in paths if path.is_file() and not path.is_symlink()]
    return Listing(folder=folder.absolute(), paths=sorted(found))


class HashFile(Module):
    """Reads one file. A plain ``forward``: it runs in a worker thread."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def forward(self, path: str) -> Hashed:
        digest, size = hashlib.sha256(), 0
        try:
            with (self.folder / path).open("rb") as file:
                while block := file.read(BLOCK_BYTES):
                    digest.update(block)
                    size += len(block)
        except OSError as error:
            return Hashed(path=path, problem=error.strerror or str(error))
        return Hashed(path=path, bytes=size, sha256=digest.hexdigest())


@module
def put_together(folder: Path, found: list[Hashed]) -> Index:
    """Make an index of the files that were hashed."""
    files, same = [file for file in found if not file.problem], defaultdict[str, list[Hashed]](list)
    for file in files:
        same[file.sha256].append(file)
    copies = [
        Copies(paths=[file.path for file in group], bytes=group[0].bytes)
        for group in same.values()
        if len(group) > 1 and group[0].bytes
    ]
    copies.sort(key=lambda one: -one.bytes * (len(one.paths) - 1))
    return Index(folder=folder, files=files, copies=copies, problems=[file for file in found if file.problem])


@module
def write_sums(index: Index, save: Path) -> None:
    """Write the hashes, in one step: there is the old file or the new one, whole."""
    part = save.with_name(f"{save.name}.part")
    part.write_text("".join(f"{file.sha256}  {file.path}\n" for file in index.files), encoding="utf-8")
    part.replace(save)


@module(flow=True)
async def index(folder: Path, save: Path | None = None, at_once: int = 4) -> Index:
    """Index *folder*, reading *at_once* files at the same time, and write the hashes to *save* if it is given."""
    listing = await list_files(folder)
    hash_files = HashFile(listing.folder).map(concurrency=at_once, progress=True)
    made = await put_together(listing.folder, await hash_files.with_(name="files")(listing.paths))
    if save is not None:
        await write_sums(made, save)
    return made
