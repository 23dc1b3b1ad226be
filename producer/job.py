"""A job: a run that can be killed at any moment and started again without doing anything twice.

Beside the output file `OUT` lies the folder `OUT.job` for as long as something is missing in it:
the job's id and, for a yard of its own, that yard's Redis. A request's id is made of the job's id
and of what is asked, so that a run that is started again submits the same ids. The broker accepts
an id once, and the answer to what was submitted before is found under it.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from modelyard.messages import Request
from modelyard.processes import private_folder
from modelyard.state_lock import try_lock
from producer.output import UsageError

log = logging.getLogger("modelyard.job")

SUFFIX: Final = ".job"


def question_digest(request: Request) -> str:
    """Return the SHA-256 in hex of what is asked, whatever the asker calls it."""
    question = request.model_copy(update={"metadata": {}})
    content = json.dumps(question.encode(), sort_keys=True)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()


def job_folder(output: Path) -> Path:
    """Return the folder of the job of an output file."""
    # Resolved, so that a link and the file it leads to are one job.
    output = output.resolve()
    return output.with_name(output.name + SUFFIX)


class Job:
    """The job of one output file, or a temporary one without `output`; use it in a `with`.

    Entering takes the job's lock and raises `UsageError` if another run has it or if the folder
    belongs to another command. `interrupted` tells whether an earlier run left something undone.
    The folder is removed at the end of a temporary job and of one that is `complete`.
    """

    def __init__(self, output: Path | None, command: str) -> None:
        self.command = command
        self.output = output
        self.complete = False
        self.interrupted = False
        self._lock: int | None = None
        self._retries: dict[str, int] = {}

    def __enter__(self) -> Self:
        if self.output is None:
            self.folder = Path(tempfile.mkdtemp(prefix="modelyard-"))
            self.id = uuid.uuid4()
            return self
        self.folder = job_folder(self.output)
        try:
            self._lock = self._locked()
        except OSError as error:
            raise UsageError(f"{self.folder}: {error.strerror}") from error
        try:
            self._open()
        except BaseException:
            self._release()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            if self.output is None or self.complete:
                self._remove_folder()
        except OSError as failure:
            log.warning("%s could not be removed (%s) and can be deleted", self.folder, failure)
        finally:
            self._release()

    @property
    def yard_folder(self) -> Path:
        """Where a private yard of this job keeps its Redis and its logs.

        That of a temporary job is the job's own folder, so that the yard can remove all of it.
        """
        return self.folder if self.output is None else self.folder / "yard"

    def request_id(self, unit: str, part: str, request: Request) -> str:
        """Return the id of one request of a unit: the same for the same question.

        A question that differs, since an option or a document changed, gets an id of its own, and
        never the answer to the old one. So does a unit that is tried again.
        """
        name = json.dumps([unit, self._retries.get(unit, 0), part, question_digest(request)])
        return str(uuid.uuid5(self.id, name))

    def try_again(self, units: Iterable[str]) -> None:
        """Give the requests of these units new ids: the old ones have their failure stored."""
        for unit in units:
            self._retries[unit] = self._retries.get(unit, 0) + 1
        self._write("retries.json", self._retries)

    def _open(self) -> None:
        described = self._read("job.json")
        if described is None:
            self.id = uuid.uuid4()
            self._write(
                "job.json",
                {"job": str(self.id), "command": self.command, "created": time.time()},
            )
            return
        if described.get("command") != self.command:
            raise UsageError(
                f"{self.folder} belongs to an unfinished `modelyard {described.get('command')}`: "
                "finish that first, or write to another file (-o)"
            )
        try:
            self.id = uuid.UUID(described["job"])
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise UsageError(self._unreadable("job.json", error)) from error
        self.interrupted = True
        self._retries = self._read("retries.json") or {}

    def _locked(self) -> int:
        """Return the open lock file; the kernel gives the lock back when we die."""
        path = self.folder / "lock"
        while True:
            private_folder(self.folder)
            try:
                descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
            except FileNotFoundError:
                continue  # a run that ended has just removed the folder
            if not try_lock(descriptor):
                os.close(descriptor)
                raise UsageError(
                    f"{self.output} is being written by another run: wait until it ends, or "
                    "write to another file (-o)"
                )
            try:
                if os.path.samestat(path.stat(), os.fstat(descriptor)):
                    return descriptor
            except FileNotFoundError:
                pass  # we have the lock of a folder that was removed meanwhile
            os.close(descriptor)

    def _remove_folder(self) -> None:
        try:
            shutil.rmtree(self.folder)
        except FileNotFoundError:
            log.debug("%s is gone already: its yard removed it", self.folder)

    def _release(self) -> None:
        descriptor, self._lock = self._lock, None
        if descriptor is not None:
            os.close(descriptor)

    def _read(self, name: str) -> dict[str, Any] | None:
        path = self.folder / name
        try:
            data = json.loads(path.read_bytes())
        except FileNotFoundError:
            return None
        except ValueError as error:
            raise UsageError(self._unreadable(name, error)) from error
        if not isinstance(data, dict):
            raise UsageError(self._unreadable(name, "it is no JSON object"))
        return data

    def _write(self, name: str, data: Any) -> None:
        """Write a file so that it is there whole or not at all."""
        draft = self.folder / f"{name}.tmp"
        with draft.open("w", encoding="utf-8") as file:
            json.dump(data, file)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(self.folder / name)

    def _unreadable(self, name: str, why: object) -> str:
        return (
            f"{self.folder / name} can't be read ({why}): remove {self.folder} to give up what "
            "is in flight; what is in the output stays"
        )
