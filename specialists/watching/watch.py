"""A share of accepted answers is audited; too many wrong ones revoke the certificate. A drift of confidences warns.

Everything here is synchronous and safe from any thread: who runs an event loop calls it in a thread when the store is
a disk. What an audit is, and who pays for it, is not known here; nor are models and ladders.
"""

from __future__ import annotations

import logging
import math
import time
from types import TracebackType

from ..errors import WatchError
from ..statistics import ShiftMartingale
from .book import Audit, Book, Key, MemoryStore, Store, Waiting
from .scores import Scores, chance
from .state import Alarm, State, Watched, WatchStatus, alarm_from, now, plain, revocation

__all__ = ["Watch"]

logger = logging.getLogger("specialists")


class Watch:
    """Watches certificates in service. One may watch any number of specialists.

    ``share`` of the accepted answers is audited: which, is told from the hash of a call's id (:meth:`draws`), so ids
    must differ between calls. ``auditor_error``: how often the auditor may call a right answer wrong; a big model that
    audits is not always right, and what is tested is "at most alpha + ``auditor_error`` of the audits find an error".
    A person, or a sound and complete verifier, has 0.

    If the promise holds, the chance that an alarm is *ever* raised is at most the certificate's delta, however often
    one looks; and that a drift is ever warned of without one, at most ``drift_level``. ``auditor_error`` belongs to
    what is tested and is fixed before the first audit: choosing it by the audits would make the chance a wish. ``None``
    goes on with what the store has, for who only hands in labels.

    Raises ``ValueError`` for shares that cannot be. Every method but :meth:`draws` raises
    :class:`~specialists.errors.WatchError` when the store fails; then nothing of the call was kept. An answer whose
    watch cannot be read is not certified.
    """

    def __init__(
        self,
        store: Store | None = None,
        *,
        share: float = 0.01,
        auditor_error: float | None = 0.0,
        drift_level: float = 0.01,
    ) -> None:
        if not 0 <= share <= 1:
            raise ValueError(f"share is the part of accepted answers that is audited, 0 to 1, not {share!r}")
        if auditor_error is not None and not 0 <= auditor_error < 1:
            raise ValueError(f"auditor_error is a share of audits, from 0 to below 1, not {auditor_error!r}")
        if not 0 < drift_level < 1:
            raise ValueError(f"drift_level lies between 0 and 1, and is neither, not {drift_level!r}")
        self.store: Store = MemoryStore() if store is None else store
        self.share = share
        self.auditor_error = auditor_error
        self.drift_level = drift_level
        self._scores = Scores(self.store, drift_level)
        self._looked_up: dict[Key, tuple[float, str | None]] = {}

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Write down what waits to be written: a few confidences, never an audit. A process that ends does so too."""
        self._scores.write()

    def draws(self, call_id: str) -> bool:
        """Whether the accepted answer of this call is to be audited. The same for the same id, in every process."""
        return chance("audit", call_id) < self.share

    def revoked(self, watched: Watched) -> str | None:
        """Why an alarm has revoked this certificate, in one sentence; ``None``: none has.

        Cheap enough to be asked before every call: with a store on disk, another process's alarm is seen half a
        second late. What was revoked stays so.
        """
        key = watched.key
        until, reason = self._looked_up.get(key, (-math.inf, None))
        if reason is not None:
            return reason
        moment = time.monotonic()
        if moment < until:
            return None
        with self.store.reading() as book:
            data = book.state(key)
        alarm = None if data is None else alarm_from(key, data.get("alarm"))
        reason = None if alarm is None else revocation(watched, alarm)
        self._looked_up[key] = (moment + self.store.stale_after, reason)
        return reason

    def seen(self, watched: Watched, call_id: str, confidence: float | None) -> None:
        """Count a call, whatever became of it, with the confidence of its first rung. To be told once for each call.

        They are written some at a time: what comes here is in :meth:`status` at once, and in another process's within
        a second where calls go on.
        """
        self._scores.add(watched, call_id, confidence)

    def audited(self, watched: Watched, call_id: str, wrong: bool, by: str) -> bool:
        """Count an audited answer; ``by`` says who audited. False: this call's audit was counted already, and stands.

        At 1/delta the certificate is revoked, which is logged once. Raises ``ValueError`` where alpha and
        ``auditor_error`` are 1 or more together, and ``TypeError`` unless ``wrong`` is a truth value.
        """
        self._may_be_tested(watched.alpha, wrong)
        with self.store.writing() as book:
            counted, alarm = self._count(book, watched, Audit(call_id, wrong, by, now()))
        self._tell(watched, alarm)
        return counted

    def pending(self, watched: Watched, call_id: str, value_json: str) -> bool:
        """Keep an answer that was drawn when there was nothing to check it with, until :meth:`label` is called for it.

        ``value_json``: what a person needs to see. False: it was audited already.
        """
        key = watched.key
        with self.store.writing() as book:
            if book.audit(key, call_id) is not None:
                return False
            book.keep(key, State.of(book, watched).to_json())  # a label finds alpha and delta there
            book.add_waiting(key, Waiting(call_id, value_json, now()))
        return True

    def awaiting(self, watched: Watched) -> list[Waiting]:
        """The answers that wait for a label, oldest first."""
        with self.store.reading() as book:
            return book.waiting(watched.key)

    def waiting(self, name: str, certificate: str) -> list[Waiting]:
        """As :meth:`awaiting`, by what :meth:`status` calls it."""
        with self.store.reading() as book:
            return book.waiting(Key(name, certificate))

    def label(self, call_id: str, wrong: bool, by: str = "person", *, watched: Watched | None = None) -> bool:
        """Say whether an answer that waits was wrong: it is then audited, as by :meth:`audited`.

        Labels may come in any order and at any time, with one condition: *all* that waits is labelled, or which is
        not has nothing to do with whether it is wrong. Who labels only what looks wrong tests nothing.

        False: it had been labelled the same before. Raises :class:`WatchError` for a call that does not wait, one that
        was audited with the other result, and one that waits under several certificates when ``watched`` names none.
        """
        with self.store.writing() as book:
            keys = [key for key in book.waits_in(call_id) if watched is None or key == watched.key]
            if len(keys) > 1:
                names = ", ".join(f"{key.name} ({key.certificate[:12]})" for key in keys)
                raise WatchError(f"the call {call_id!r} waits under several certificates, {names}; say which is meant")
            if not keys:
                return self._labelled_before(book, call_id, wrong, watched)
            state = book.state(keys[0])
            if state is None:
                raise WatchError(f"the store has no state of {keys[0].name}, for which {call_id!r} waits")
            kept = State.from_json(keys[0], state)
            target = watched or Watched(*keys[0], kept.alpha, kept.delta)
            self._may_be_tested(target.alpha, wrong)
            counted, alarm = self._count(book, target, Audit(call_id, wrong, by, now()))
        self._tell(target, alarm)
        return counted

    def status(self) -> list[WatchStatus]:
        """How it stands, for every certificate in the store, by name."""
        self._scores.write()
        with self.store.reading() as book:
            found = [(key, book.state(key) or {}, len(book.waiting(key))) for key in book.watched()]
        return [State.from_json(key, data).status(key, awaiting) for key, data, awaiting in found]

    def _may_be_tested(self, alpha: float, wrong: bool) -> None:
        if not isinstance(wrong, bool):
            raise TypeError(f"an answer is wrong (True) or not (False), not {wrong!r}")
        if alpha + (self.auditor_error or 0) >= 1:
            raise ValueError(
                f"with alpha {alpha:g} and auditor_error {self.auditor_error:g} no number of errors would be too many"
            )

    def _count(self, book: Book, watched: Watched, audit: Audit) -> tuple[bool, Alarm | None]:
        """Whether it was counted, and the alarm if this audit raised it."""
        key = watched.key
        book.drop_waiting(key, audit.call_id)
        if book.audit(key, audit.call_id) is not None:
            return False, None
        state = State.of(book, watched)
        if self.auditor_error is None and state.shift is not None:
            null = state.shift.null
        else:
            null = watched.alpha + (self.auditor_error or 0.0)
        earlier: list[Audit] = []
        if state.shift is None or state.shift.null != null:  # another auditor than before: the bet begins anew
            state.shift, earlier = ShiftMartingale(null), book.audits(key)
        raised = None
        for each in (*earlier, audit):
            if state.shift.update(each.wrong) >= 1 / watched.delta and state.alarm is None:
                state.alarm = raised = Alarm(now(), state.shift.audits, state.shift.errors)
        book.add_audit(key, audit)
        book.keep(key, state.to_json())
        return True, raised

    def _tell(self, watched: Watched, alarm: Alarm | None) -> None:
        if alarm is None:
            return
        reason = revocation(watched, alarm)
        self._looked_up[watched.key] = (math.inf, reason)
        logger.error("the certificate of %s is %s", plain(watched.name), reason)

    def _labelled_before(self, book: Book, call_id: str, wrong: bool, watched: Watched | None) -> bool:
        for key in book.audited_in(call_id):
            audit = book.audit(key, call_id)
            if audit is not None and (watched is None or watched.key == key):
                if audit.wrong == wrong:
                    return False
                told = "wrong" if audit.wrong else "right"
                raise WatchError(f"the call {call_id!r} was audited as {told} already, by {audit.by}, and that stands")
        raise WatchError(f"no answer of a call {call_id!r} waits for a label; see which do with Watch.awaiting")
