"""How long the rest of a run will take: predicted from what was measured before, corrected by what is seen."""

from collections import defaultdict
from collections.abc import Iterable, Mapping

Kind = tuple[str, ...]  # work that is predicted wrongly by the same factor, from what it shares with others to its own


class Forecast:
    """Predicted seconds of pieces of work, each of some kind, and how wrong the predictions were so far.

    A kind that was not seen yet is taken to be as wrong as the kinds that begin as it does, the longest such beginning
    first; before anything was seen, predictions are believed.

    Args:
        work: the kind and the predicted seconds of every piece.
        workers: how many pieces are worked on at a time.
    """

    def __init__(self, work: Iterable[tuple[Kind, float]], workers: int) -> None:
        self._left: dict[Kind, float] = defaultdict(float)
        self._predicted: dict[Kind, float] = defaultdict(float)
        self._took: dict[Kind, float] = defaultdict(float)
        self._workers = max(1, workers)
        for kind, seconds in work:
            self._left[kind] += seconds

    def saw(self, kind: Kind, predicted: float, took: float | None) -> None:
        """A piece is done in `took` seconds; None: it was skipped, and says nothing of its kind."""
        self._left[kind] -= predicted
        for length in range(len(kind) + 1) if took is not None else ():
            self._predicted[kind[:length]] += predicted
            self._took[kind[:length]] += took or 0.0

    def seconds(self) -> float:
        """Until all is done."""
        return sum(max(0.0, left) * self._factor(kind) for kind, left in self._left.items()) / self._workers

    def _factor(self, kind: Kind) -> float:
        seen: Mapping[Kind, float] = self._predicted
        for length in range(len(kind), -1, -1):
            if seen.get(kind[:length], 0) > 0:
                return self._took[kind[:length]] / seen[kind[:length]]
        return 1.0
