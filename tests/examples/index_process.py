"""One process of the job over many files: ``python index_process.py WORK [KILLED_AT]``.

It starts the run, or goes on with it, and says what came of it. What it opens below ``WORK/files`` stands in
``WORK/opened``, a line each; when it opens the KILLED_AT-th of them it kills itself with SIGKILL.
"""

import asyncio
import os
import signal
import sys
import threading
from pathlib import Path

from index_files import index
from mai.durable import SQLiteEngine


async def main(work: Path, killed_at: int) -> None:
    files, opened = f"{work / 'files'}{os.sep}", 0
    one_at_a_time = threading.Lock()  # four threads open files

    def hear(event: str, args: tuple[object, ...]) -> None:
        nonlocal opened
        if event == "open" and isinstance(args[0], str) and args[0].startswith(files):
            with one_at_a_time:
                opened += 1
                log = os.open(work / "opened", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
                os.write(log, f"{os.path.basename(args[0])}\n".encode())
                os.close(log)
                if opened == killed_at:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hear)
    async with SQLiteEngine(work / "runs.db", ttl=0.3, modules=[index]) as engine:
        given = index.payload(folder=work / "files", save=work / "SHA256SUMS")
        print((await engine.start(index, given, run_id="files")).model_dump_json())


asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0))
