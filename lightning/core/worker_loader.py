"""A loader whose processes need no shared memory, and whose failures are one line.

torch's loader processes hand tensors over in /dev/shm, of which a container has 64 MB unless it is
told otherwise. Where that is full, a process fails silently and the training waits forever. Here a
batch goes through a pipe: some milliseconds more for a large one, and nothing to run out of.
"""

from __future__ import annotations

import io
import os
import pickle
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, get_worker_info
from torch.utils.data._utils.pin_memory import pin_memory

from deepacc_d2.errors import UserError
from deepacc_lightning.core.orphans import end_with_parent

TOO_FEW = "use fewer loader processes (scale.num_workers= of a training, else num_workers=; 0 for"
"""Beginning of what helps where loader processes fail."""


class LoaderError(UserError):
    """Loader processes could not be started, or one of them was ended."""


class _Pickler(pickle.Pickler):
    """Takes tensors for arrays: torch's own way is a file within the file for each."""

    def reducer_override(self, obj: Any) -> Any:
        if type(obj) is Tensor and obj.device.type == "cpu" and not obj.requires_grad:
            try:
                return torch.from_numpy, (obj.numpy(),)
            except TypeError:  # a type that NumPy lacks, such as bfloat16
                return NotImplemented
        return NotImplemented


class Packed:
    """A batch as bytes, as it goes through a pipe."""

    def __init__(self, batch: Any) -> None:
        buffer = io.BytesIO()
        _Pickler(buffer, protocol=pickle.HIGHEST_PROTOCOL).dump(batch)
        self.content = buffer.getvalue()

    def unpack(self) -> Any:
        """Returns the batch; its tensors are this process's own."""
        return pickle.loads(self.content)

    def pin_memory(self) -> Any:
        """Returns the batch in page-locked memory; torch's thread for that calls this."""
        return pin_memory(self.unpack())


def identity(batch: list[Any]) -> Any:
    """Leaves a batch a list, since Detectron2 pads images of different sizes itself.

    In a loader process it is packed; :class:`WorkerLoader` unpacks it.
    """
    return batch if get_worker_info() is None else Packed(batch)


class BeginWorker:
    """How a loader process begins: only the one that started it ends it, by SIGTERM or its own end.

    Ctrl-C and schedulers signal all processes of a group, some more than once. A training finishes
    its step then, for which it needs its workers. And a worker whose parent was killed would wait
    for ever with a full pipe to nobody.

    Args:
        then: what else it begins with; of the worker's number.
    """

    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then

    def __call__(self, worker_id: int) -> None:
        """Begins."""
        end_with_parent()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if hasattr(signal, "sigwaitinfo"):
            # All threads inherit this: none but the one below gets the signal.
            signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
            threading.Thread(target=_end_when_told, args=(os.getppid(),), daemon=True).start()
        else:  # macOS, where nobody can tell who sent a signal
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if self.then is not None:
            self.then(worker_id)


def _end_when_told(parent: int) -> None:
    """Ends this process once its parent sends SIGTERM."""
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != parent:
        pass
    os._exit(0)  # as torch's own workers do: an end that was ordered is no failure


@contextmanager
def _signals_held() -> Iterator[None]:
    """Holds signals back while processes are started, which inherit this until they can tell them.

    A signal to the group would else end a process that has not come to :class:`BeginWorker`.
    """
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


class WorkerLoader(DataLoader):
    """A ``DataLoader`` of batches that :func:`identity` collates."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """Yields the batches.

        Raises:
            LoaderError: the processes cannot be started, or one was ended from outside.
        """
        if not isinstance(self.worker_init_fn, BeginWorker):
            self.worker_init_fn = BeginWorker(self.worker_init_fn)
        try:
            with _signals_held():
                batches = super().__iter__()
        except OSError as error:  # no semaphore, no process, no open file left
            raise LoaderError(
                f"the loader processes cannot be started ({error.strerror or error}): {TOO_FEW} "
                "none), or give a container more of /dev/shm, by docker run --shm-size=1g"
            ) from error
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                raise loader_error(error) or error from error.__cause__
            yield batch.unpack() if isinstance(batch, Packed) else batch


def loader_error(error: BaseException) -> LoaderError | None:
    """Returns what to say where torch found that a loader process was ended; None for else.

    torch says so wherever the training is at that moment.
    """
    text = " ".join(str(error).split())
    found = re.match(r"DataLoader worker \(pid(?:\(s\))? ([\d, ]+)\)(.*)", text)
    if not isinstance(error, RuntimeError) or found is None:
        return None
    reason = re.search(r"is killed by signal: ([^.]*)", found[2])
    what = f"was ended by the signal {reason[1].strip()!r}" if reason else "ended unexpectedly"
    return LoaderError(
        f"loader process {found[1]} {what}, as happens where memory runs out: {TOO_FEW} none), or "
        "a smaller batch"
    )
