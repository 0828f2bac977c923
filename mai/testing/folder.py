"""What outlives a process in `crash_check`; a folder of real files does."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Protocol, Self


class Disk(Protocol):
    """What outlives a process, in `crash_check`."""

    def after_crash(self, seed: int) -> Self:
        """Return the disk as the next process finds it."""
        ...


class CopiedFolder:
    """A folder of real files that a process leaves behind when it is killed: the next one works on a copy of it.

    It is for journals that cannot be handed a simulated disk, such as `mai.durable.SQLiteJournal`. What was written is
    there, synced or not, as after a ``kill -9``.

    Args:
        parent: The folder in which it and its copies are made; nobody else removes them.

    Attributes:
        path: Where it is.

    Example:
        >>> import tempfile
        >>> from mai.testing import CopiedFolder
        >>> with tempfile.TemporaryDirectory() as parent:
        ...     folder = CopiedFolder(parent)
        ...     _ = (folder.path / "notes").write_text("whole")
        ...     copy = folder.after_crash()
        ...     _ = (folder.path / "notes").write_text("by nobody: the process is gone")
        ...     (copy.path / "notes").read_text()
        'whole'
    """

    def __init__(self, parent: "str | os.PathLike[str]") -> None:
        self.parent: Path = Path(parent)
        self.path: Path = Path(tempfile.mkdtemp(dir=self.parent))

    def after_crash(self, seed: int = 0) -> "CopiedFolder":
        """Return a copy of the folder as it is now; there is nothing to choose."""
        found = CopiedFolder(self.parent)
        shutil.copytree(self.path, found.path, dirs_exist_ok=True)
        return found
