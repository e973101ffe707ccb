"""The critical path of one job or call through the manager's threads, cut into parts without gaps.

The path is found from its end: the relay published the result, the operation's thread wrote it, the executor claimed
the operation, ingest took its entry. For a call, one thread accepts and answers. At each moment the other threads wait
for one of these; its innermost effect is the part. Between two effects is Python, or the handover to the next thread.
The parts therefore add up to the whole.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

from bench.errors import BenchError
from bench.profile.notes import Span

INGEST, EXECUTOR, OPERATION, RELAY = "rtm-ingest", "rtm-executor", "rtm-operation", "rtm-outbox"
CALLER, ANSWER = "rtm-http-client", "rtm-http-client again"
ACCEPTED, TAKEN, CLAIMED, WRITTEN = (
    "postgres.submit, commit",
    "postgres.ingest, commit",
    "postgres.claim, commit",
    "postgres.finish, commit",
)
PUBLISHED = "redis.publish"

#: Prefix of a gap between two effects.
PYTHON = "Python"


@dataclass(frozen=True, slots=True)
class Job:
    """One job or call by the client's clock: from before the request until the client has read the answer."""

    began_ns: int
    ended_ns: int

    @property
    def took_ns(self) -> int:
        """Duration in nanoseconds."""
        return self.ended_ns - self.began_ns


@dataclass(frozen=True, slots=True)
class Part:
    """One segment of the critical path. `stage` is the thread's name, without a number."""

    stage: str
    what: str
    began_ns: int
    ended_ns: int

    @property
    def took_ns(self) -> int:
        """Duration in nanoseconds."""
        return self.ended_ns - self.began_ns


@dataclass(frozen=True, slots=True)
class _Stage:
    """One thread's share: all of its spans, and when it hands the job on."""

    name: str
    spans: Sequence[Span]
    ended_ns: int


#: A stage's name, its thread, and when it hands the job on.
_Handing = tuple[str, str, int]


def parts(job: Job, spans: Sequence[Span]) -> list[Part]:
    """The parts of the job's time. Raises BenchError when the spans are not those of a single job."""
    published = _last(spans, RELAY, PUBLISHED, job.ended_ns)
    finished = _last(spans, OPERATION, WRITTEN, published.began_ns)
    relayed = (RELAY, RELAY, min(published.ended_ns, job.ended_ns))
    found = _cut(job, spans, [*_until(finished, INGEST, TAKEN, job, spans), relayed])
    if found[-1].ended_ns < job.ended_ns:  # a client may read it before Redis's reply reaches the relay
        found.append(Part(RELAY, "the result is read", found[-1].ended_ns, job.ended_ns))
    return found


def parts_of_call(call: Job, spans: Sequence[Span]) -> list[Part]:
    """As `parts`, for a REST call."""
    finished = _last(spans, OPERATION, WRITTEN, call.ended_ns)
    return _cut(call, spans, [*_until(finished, CALLER, ACCEPTED, call, spans), (ANSWER, CALLER, call.ended_ns)])


def _until(finished: Span, accepting: str, accepted: str, job: Job, spans: Sequence[Span]) -> Iterator[_Handing]:
    """The stages until the end was written; `accepting` is the thread that created the operation."""
    work = [span for span in spans if span.thread == finished.thread]
    claimed = _last(spans, EXECUTOR, CLAIMED, work[0].began_ns)
    taken = _last(spans, accepting, accepted, claimed.began_ns)
    if taken.began_ns < job.began_ns:
        raise BenchError("a job was done before it was asked for: something else was at work")
    # The executor reads the records of its claim before it starts a thread.
    begun_ns = max(span.ended_ns for span in spans if span.thread == EXECUTOR and span.ended_ns < work[0].began_ns)
    yield accepting, taken.thread, taken.ended_ns
    yield EXECUTOR, EXECUTOR, begun_ns
    yield OPERATION, finished.thread, finished.ended_ns


def _cut(job: Job, spans: Sequence[Span], way: Iterable[_Handing]) -> list[Part]:
    found: list[Part] = []
    began_ns = job.began_ns
    for name, thread, ended_ns in way:
        found += _within(_Stage(name, [span for span in spans if span.thread == thread], ended_ns), began_ns)
        began_ns = ended_ns
    return found


def _last(spans: Sequence[Span], thread: str, what: str, before_ns: int) -> Span:
    """The last such span that began before that moment; raises BenchError without one."""
    found = [span for span in spans if span.thread.startswith(thread) and span.what == what]
    past = [span for span in found if span.began_ns < before_ns]
    if not past:
        raise BenchError(f"nothing that {thread} did is {what!r}: was the manager traced?")
    return max(past, key=lambda span: span.began_ns)


def _within(stage: _Stage, began_ns: int) -> Iterator[Part]:
    """The parts of the thread from `began_ns` until it hands the job on."""
    own = [span for span in stage.spans if span.ended_ns > began_ns and span.began_ns < stage.ended_ns]
    moments = {began_ns, stage.ended_ns}
    for span in own:
        moments |= {max(span.began_ns, began_ns), min(span.ended_ns, stage.ended_ns)}
    cuts = sorted(moments)
    for begin, end in pairwise(cuts):
        inside = [span for span in own if span.began_ns <= begin and span.ended_ns >= end]
        what = max(inside, key=lambda span: span.began_ns).what if inside else _gap(stage, own, begin, began_ns)
        yield Part(stage.name, what, begin, end)


def _gap(stage: _Stage, own: Sequence[Span], at_ns: int, began_ns: int) -> str:
    if at_ns == began_ns:
        return f"{stage.name} begins"
    coming = min((span for span in own if span.began_ns > at_ns), key=lambda span: span.began_ns, default=None)
    return f"{PYTHON} before {coming.what.partition(',')[0]}" if coming else "the answer is read"
