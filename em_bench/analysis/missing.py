"""Where an analysis has no number to give, it says why."""

from em_bench.records import Record


class Missing(Record):
    """The place of a number that the runs cannot give."""

    reason: str

    def __bool__(self) -> bool:
        return False
