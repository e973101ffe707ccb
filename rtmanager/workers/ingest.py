"""Ingest: turns stream entries into durable operations, in the order of their ids across both streams.

An entry is acknowledged only after it is durable, and nothing slow happens in between. An entry that is delivered
again, because its acknowledgement was lost, is recognised. When a failover or a restore set the store back, the
acknowledged entries that it lost are read again.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rtmanager.domain.errors import FinalAnswer, Unavailable
from rtmanager.domain.jobs import STREAM_ORDER, Batch, Job, letter_of, read_job, ready_entries
from rtmanager.domain.messages import Message, Stream
from rtmanager.ports.store import StoreRejected
from rtmanager.ports.streams import Inbox, IngestLock, InputStreams
from rtmanager.workers.held import MOST_FAILED, HeldEntries, by_game
from rtmanager.workers.missed_leases import MissedLeases

#: Entries of one stream that one transaction accepts.
BATCH = 200
#: Longest wait for an entry, in seconds; also the delay before entries that a dead instance had read are found.
WAIT_S = 5.0
#: Dead letters of one batch that are logged one by one; one more line counts the others.
LOGGED_LETTERS = 10
#: Seconds before the next attempt to get a lock that another instance has.
OTHER_TURN_PAUSE_S = 0.02
#: Seconds of pause when every entry read is blocked by a held entry and the stream has more.
HELD_PAUSE_S = 1.0
#: Beginning of the reason of a dead letter whose operation the store rejects.
_REFUSED = "the store refuses its operation"


@dataclass(frozen=True, slots=True)
class _Taken:
    """The batches that were read under one lock, and the jobs that were accepted from them."""

    batches: Sequence[Batch]
    jobs: list[Job]
    more: bool


class Ingest:
    """One step accepts the entries that are there, then waits for more."""

    def __init__(
        self,
        streams: InputStreams,
        inbox: Inbox,
        names: Mapping[Stream, str],
        *,
        accepted: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        self._streams = streams
        self._inbox = inbox
        self._leases = MissedLeases(inbox.holder)
        #: Jobs that were offered to the store under the present lock; empty after the commit.
        self._offered: list[Job] = []
        self.held = HeldEntries()
        self._names = names
        self._accepted = accepted
        self._logger = logger

    def step(self) -> bool:
        """Return True: the step itself waits, on Redis, where a new entry ends the wait at once."""
        try:
            more = self._take_over_or_refuse()
        except Unavailable as error:
            offered = self._offered
            if error.dependency != "postgres" or not offered or not self.held.silent(offered, error):
                raise
            self._logger.warning(
                "the store is silent about entries, trying them one by one", extra={"error": str(error)}
            )
            self._try_alone(offered)
            more = True
        if not more and not self._try_held():
            self._streams.wait(min(WAIT_S, self.held.due_in_s()))
        return True

    def _take_over_or_refuse(self) -> bool:
        try:
            return self._take_over()
        except StoreRejected as error:
            # Most likely because of one entry; the entries of other games must not wait for it.
            self._logger.warning("the store refuses entries, taking them over one by one", extra={"error": str(error)})
            return self._take_over(one_by_one=True)

    def _take_over(self, *, one_by_one: bool = False) -> bool:
        """Accept one batch and acknowledge it; return whether there may be more right now."""
        self._offered = []
        with self._inbox.lock() as lock:
            if lock is not None:
                self._leases.had()
                taken = self._accept(lock, one_by_one=one_by_one)
        if lock is None:
            self._leases.missed()
            time.sleep(OTHER_TURN_PAUSE_S)
            return False
        self._report_forgotten(lock)
        self._offered = []
        if taken.jobs:
            self._finish(taken.jobs)
        self._check_refused(taken.batches)
        return taken.more

    def _accept(self, lock: IngestLock, *, one_by_one: bool) -> _Taken:
        """Read and accept one batch under the lock; it is durable when the lock ends."""
        batches = self._streams.read(BATCH + self.held.waiting)
        more = any(not batch.drained for batch in batches)
        if not any(batch.entries for batch in batches):
            self._check_refused(batches)
            # The entries read may all have been deleted; there may be more behind them.
            self.held.others([])
            return _Taken(batches, [], more=more or self._give_again(lock))
        jobs = [read_job(entry, self._names[entry.stream]) for entry in ready_entries(batches)]
        self._offered = jobs = self.held.others(jobs)
        if one_by_one:
            jobs = [self._accepted_alone(lock, job) for job in jobs]
        elif jobs:
            lock.accept(jobs)
        if more and not jobs:
            time.sleep(HELD_PAUSE_S)  # every entry read is blocked by a held entry
        return _Taken(batches, jobs, more=more)

    def _try_alone(self, jobs: Sequence[Job]) -> None:
        """Accept each job in a transaction of its own; hold those that time out while others succeed.

        Raises `Unavailable` when no job is accepted: then the cause is not a single entry.
        """
        taken: list[Job] = []
        failed: list[tuple[Job, Unavailable]] = []
        for game in by_game(jobs):
            for job in game:
                try:
                    accepted = self._accepted_under_own_lock(job)
                except Unavailable as error:
                    failed.append((job, error))
                    break
                if accepted is None:
                    break
                taken.append(accepted)
            if len(failed) == MOST_FAILED:
                break
        if not taken and failed:
            raise failed[0][1]
        for job, silence in failed:
            self._hold(job, silence)
        if taken:
            self._finish(taken)

    def _try_held(self) -> bool:
        """Retry a held entry that is due; return whether it was accepted, so that later ones of its game may follow."""
        job = self.held.due()
        if job is None:
            return False
        try:
            accepted = self._accepted_under_own_lock(job)
        except Unavailable as error:
            self._hold(job, error)
            return False
        if accepted is None:
            return False
        self.held.let_go(job)
        self._finish([accepted])
        return True

    def _hold(self, job: Job, error: Unavailable) -> None:
        if self.held.hold(job, error):
            entry = {"stream": self._names[job.entry.stream], "entry_id": str(job.entry.entry_id)}
            if not isinstance(job.becomes, Message):
                entry["game_id"] = job.becomes.game_id
            self._logger.error("entry waits, the store does not take it over", extra={**entry, "error": str(error)})

    def _accepted_under_own_lock(self, job: Job) -> Job | None:
        """As `_accepted_alone`, under a lock of its own; None when another instance has the lock."""
        with self._inbox.lock() as lock:
            accepted = None if lock is None else self._accepted_alone(lock, job)
        if lock is not None:
            self._report_forgotten(lock)
        return accepted

    def _report_forgotten(self, lock: IngestLock) -> None:
        if lock.forgotten:
            self._logger.warning(
                "entries came again whose operations were deleted, they are not done again",
                extra={"count": lock.forgotten},
            )

    def _accepted_alone(self, lock: IngestLock, job: Job) -> Job:
        """Accept one job; return it, or the dead letter that replaces it when the store rejects the job.

        Raises `StoreRejected` when the dead letter is rejected, too, and `FinalAnswer` when the store rejects the
        operations of every game: a dead letter stands for a fault of one entry.
        """
        refusal = _refusal_of(lock, job)
        if refusal is not None and not isinstance(job.becomes, Message):
            try:
                lock.require_room(job)
            except StoreRejected as error:
                raise FinalAnswer("postgres", f"it takes over no job, so all of them wait: {error}") from error
            # The cause may have been removed between the two attempts.
            refusal = _refusal_of(lock, job)
        if refusal is not None:
            reason = f"{_REFUSED}, so it cannot be answered: {refusal}"
            job = Job(job.entry, letter_of(job.entry, self._names[job.entry.stream], reason))
            lock.accept_alone(job)
        return job

    def _check_refused(self, batches: Sequence[Batch]) -> None:
        """Raise `FinalAnswer` for a key that is no stream, after the other stream's entries are accepted."""
        for stream, batch in zip(STREAM_ORDER, batches, strict=True):
            if batch.refused:
                raise FinalAnswer(
                    "redis",
                    f"{self._names[stream]} is no stream of Redis, so no job is read from it; move the key away: "
                    f"{batch.refused}",
                )

    def _give_again(self, lock: IngestLock) -> bool:
        """Let entries that the store lost be read again; return whether there are any.

        Called when no entry is pending: all that was delivered is acknowledged, so all of it should be durable.
        """
        for stream, last in self._streams.give_all_again().items():
            self._logger.warning(
                "the last id of a stream is below what was read, reading all its entries again",
                extra={"stream": self._names[stream], "up_to": str(last)},
            )
        known = lock.latest()
        given = self._streams.give_again(known)
        for stream, last in given.items():
            self._logger.warning(
                "entries that were taken over are gone from the database, reading them again",
                extra={"stream": self._names[stream], "after": str(known[stream]), "up_to": str(last)},
            )
        return bool(given)

    def _finish(self, jobs: list[Job]) -> None:
        self._accepted()
        self._streams.acknowledge([job.entry for job in jobs])
        letters = [(job.entry, job.becomes.fields) for job in jobs if isinstance(job.becomes, Message)]
        for entry, fields in letters[:LOGGED_LETTERS]:
            extra = {name: fields[name] for name in ("stream", "entry_id", "reason")}
            extra |= {"size": str(entry.size), "digest": entry.digest}
            refused = fields["reason"].startswith(_REFUSED)
            why = "the store refuses the operation of an entry" if refused else "entry names no game"
            self._logger.warning(f"{why}, moved to the dead letters", extra=extra)
        if len(letters) > LOGGED_LETTERS:
            more = {"count": len(letters) - LOGGED_LETTERS}
            self._logger.warning("more entries moved to the dead letters", extra=more)


def _refusal_of(lock: IngestLock, job: Job) -> StoreRejected | None:
    """Offer one job to the store; return its refusal, None when the job is accepted."""
    try:
        lock.accept_alone(job)
    except StoreRejected as error:
        return error
    return None
