"""A gateway-owned turn while it runs: who waits for it, what it has said so far, how it ended."""

from __future__ import annotations

from dataclasses import dataclass, field

from gevent.event import Event

from app.relay.heard import Heard
from app.store.inputs import InputRow

ANSWER_MAX = 2 << 20  # characters of an answer that are kept and sent
KEPT_ITEMS, KEPT_ENDS = 10_000, 100  # of what an agent says of turns: it may say it without an end


@dataclass
class Turn:
    """`id` is None until turn/start is answered; what is heard before that is kept by turn."""

    rows: list[InputRow]
    thread: str
    position: int  # where the stream stood when it was last seen to go on
    progress_at: float  # monotonic seconds
    id: str | None = None
    adopted: bool = False  # found running: not all that it said was heard
    ended: Heard | None = None
    why: str = ""  # why it was stopped, if it was
    cancel_id: str | None = None
    poke: Event = field(default_factory=Event)
    _texts: dict[str, list[str]] = field(default_factory=dict)
    _ends: dict[str, Heard] = field(default_factory=dict)
    _seen: set[str] = field(default_factory=set)
    _size: int = 0

    def hear(self, heard: Heard) -> None:
        """Something of the turn's thread."""
        if heard.what == "agent" and heard.item not in self._seen and self.id in (None, heard.turn):
            self._seen.add(heard.item)
            if len(self._seen) <= KEPT_ITEMS and self._size <= ANSWER_MAX:  # the last one kept shows that it was cut
                self._texts.setdefault(heard.turn, []).append(heard.text)
                self._size += len(heard.text)
            else:
                self._seen.discard(heard.item)
        elif heard.what == "turn_completed":
            if heard.turn == self.id:
                self.ended = heard
            elif self.id is None and len(self._ends) < KEPT_ENDS:
                self._ends[heard.turn] = heard
        self.poke.set()

    def begun(self, id: str) -> None:
        """turn/start was answered."""
        self.id, self.ended = id, self._ends.get(id)
        self.poke.set()

    @property
    def texts(self) -> list[str]:
        """Its agent messages, in order."""
        return self._texts.get(self.id or "", [])


def answer_of(texts: list[str] | tuple[str, ...]) -> str:
    """All agent messages of a turn as one text."""
    text = "\n\n".join(text.strip() for text in texts if text.strip())
    if len(text) <= ANSWER_MAX:
        return text
    return text[:ANSWER_MAX] + "\n\n[cut here: it is longer than this; thread/read has the rest]"
