"""Being told to end: SIGTERM, or the SIGUSR1 that SLURM sends ahead of a time limit (`--signal=USR1@300`)."""

import signal
import threading
from types import FrameType

ENDED = 143  # 128 + SIGTERM: as the shell reports it, so that a scheduler requeues


class Ending:
    """In its block these signals are noted in `asked`, for the loop to end after the step; a second one ends the process at once."""

    asked = False

    def __enter__(self) -> "Ending":
        self._before = {}
        if threading.current_thread() is threading.main_thread():  # nowhere else may a process change this
            self._before = {s: signal.signal(s, self._note) for s in (signal.SIGTERM, signal.SIGUSR1)}
        return self

    def _note(self, number: int, _: FrameType | None) -> None:
        if self.asked:
            self.__exit__()
            signal.raise_signal(number)
        self.asked = True

    def __exit__(self, *_) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
