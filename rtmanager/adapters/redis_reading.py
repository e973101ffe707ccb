"""Reads entries without receiving those that are too large: a Redis script, and the decoding of its answer.

Redis's own commands limit a read by the number of entries only. The script takes entries one by one, in their order
over all streams, up to a number of bytes. For an entry that is too large it returns the beginnings of its fields, its
size and a digest. So a batch is bounded on both sides: here by `BUDGET_BYTES`, in Redis by `WORK_BYTES` and one entry.

Each command scans the stream's node from its beginning. Where nodes are unbounded (`stream-node-max-entries 0`) that
takes milliseconds, and the script takes `CHUNK` entries with each command: see `Pace`.

The read is one step, because reading changes what Redis delivers next. A lost answer may be requested again, and a
frozen instance may continue with a stale request. The whole step then returns what was delivered before; parts of it
would not.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rtmanager.domain.jobs import (
    CUT_FIELDS,
    CUT_NAME_BYTES,
    CUT_VALUE_BYTES,
    ENTRY_BYTES,
    ENTRY_FIELDS,
    KNOWN_FIELDS,
    Batch,
    Entry,
    EntryId,
    Excess,
)
from rtmanager.domain.messages import Stream

#: Bytes of one answer; the answer ends when they are reached, with the entry that reached them. The least is for a slow
#: connection.
BUDGET_BYTES = 256 * 1024
LEAST_BUDGET_BYTES = 1
#: Bytes that Redis may process for one answer: a tenth of a second, in which it does nothing else.
WORK_BYTES = 16 * 1024 * 1024
#: Added for each name and value: its overhead in the answer, and its cost in Redis.
_OVERHEAD = 16
_PART_WORK = 64
#: Seconds in which Redis processes `WORK_BYTES`.
_WORK_S = 0.1
#: For the digest, a longer name or value is hashed on its own, and that many parts are hashed together. Lua's strings
#: cost more than their content, and no long one is copied.
_LONG_BYTES = 1024
_TOGETHER = 1000

#: XAUTOCLAIM calls per read that look for pending entries; each drops up to `limit` deleted ones.
_MOST_CLAIMS = 50

#: Entries that one command takes where finding them costs more than `SEARCH_S` seconds. Eight of 10 MB keep Redis busy
#: for 0.3 s; none of them is copied into the answer.
CHUNK = 8
SEARCH_S = 0.00025
#: The largest cost of a search, so that a read makes progress, and the cost before any measurement.
_MOST_SEARCH_S = _WORK_S / 10
_FIRST_SEARCH_S = _WORK_S / 20
#: Reads of fewer entries say little about a search: most of their time may be the network's.
_TELLING_ENTRIES = 8

#: KEYS: the streams. ARGV: group, consumer, entries of one stream, bytes of the answer, bytes to process, entries
#: that one command takes, and the bytes that a command counts as.
#: Returns for each stream: 1 if it had no more, its entries, and why it could not be read. An entry is its id and its
#: fields; one that is cut also has its size, number of fields, digest and repeated names.
#: Pending entries, delivered before and not acknowledged, come first; XAUTOCLAIM also drops those that were deleted.
#: The first line lets a server that takes no writes now (a replica, or a full memory) refuse the script at once.
READ = f"""#!lua
local group, consumer, limit, budget, work = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4]), tonumber(ARGV[5])
local chunk, search = tonumber(ARGV[6]), tonumber(ARGV[7])
local known = {{{", ".join(f"['{name}'] = true" for name in KNOWN_FIELDS)}}}

local function cut(id, fields)
  local seen, repeated, kept, others, size = {{}}, {{}}, {{}}, 0, 0
  for i = 1, #fields, 2 do
    local name, value = fields[i], fields[i + 1]
    size = size + #name + #value
    if seen[name] then
      if seen[name] == 1 then repeated[#repeated + 1] = name:sub(1, {CUT_NAME_BYTES}) end
      seen[name] = 2
    elseif others < {CUT_FIELDS} or known[name] then
      if not known[name] then others = others + 1 end
      seen[name] = 1
      kept[#kept + 1] = name:sub(1, {CUT_NAME_BYTES})
      kept[#kept + 1] = value:sub(1, {CUT_VALUE_BYTES})
    end
    if #name > {_LONG_BYTES} then fields[i] = redis.sha1hex(name) end
    if #value > {_LONG_BYTES} then fields[i + 1] = redis.sha1hex(value) end
  end
  local hashes = {{size .. ':' .. #fields}}
  for i = 1, #fields, {_TOGETHER} do
    local last = math.min(i + {_TOGETHER} - 1, #fields)
    hashes[#hashes + 1] = redis.sha1hex(table.concat(fields, ' ', i, last))
  end
  return {{id, kept, size, #fields / 2, redis.sha1hex(table.concat(hashes, ' ')), repeated}}
end

local function earlier(a, b)
  if a.ms == b.ms then return #a.seq < #b.seq or #a.seq == #b.seq and a.seq < b.seq end
  return #a.ms < #b.ms or #a.ms == #b.ms and a.ms < b.ms
end

-- The next entries of a stream; those that are not answered are given again. A range may have others in it, that were
-- acknowledged.
local function fetch(s)
  local count = math.min(s.chunk, limit - s.taken)
  s.rows, s.at = {{}}, 1
  if count == 0 then return end
  if s.claimed < #s.given then
    local last = s.given[math.min(s.claimed + count, #s.given)]
    for _, row in ipairs(redis.call('XRANGE', s.key, s.given[s.claimed + 1], last, 'COUNT', count)) do
      if row[1] == s.given[s.claimed + 1] then
        s.claimed = s.claimed + 1
        s.rows[#s.rows + 1] = row
      end
    end
  elseif not s.more then
    local reply = redis.call('XREADGROUP', 'GROUP', group, consumer, 'COUNT', count, 'STREAMS', s.key, '>')
    if reply then s.rows = reply[1][2] else s.drained = 1 end
    work = work - search
  end
end

local streams, open = {{}}, 0
for n, key in ipairs(KEYS) do
  local s = {{key = key, given = {{}}, more = false, taken = 0, entries = {{}}, drained = 0, open = true, refused = '',
    rows = {{}}, at = 1, claimed = 0, chunk = chunk}}
  local cursor, tries = '0-0', 0
  repeat
    local reply = redis.pcall('XAUTOCLAIM', key, group, consumer, 0, cursor, 'COUNT', limit, 'JUSTID')
    if reply.err then
      if reply.err:sub(1, 9) ~= 'WRONGTYPE' then return reply end
      s.open, s.drained, s.refused = false, 1, reply.err
      break
    end
    cursor, s.given = reply[1], reply[2]
    tries = tries + 1
  until #s.given > 0 or cursor == '0-0' or tries == {_MOST_CLAIMS}
  s.more = cursor ~= '0-0'
  streams[n] = s
  if s.open then open = open + 1 end
end

while open > 0 do
  local s
  for _, each in ipairs(streams) do
    if each.open and (not s or s.ms and (not each.ms or earlier(each, s))) then s = each end
  end
  local fetched = s.at <= #s.rows
  if s.ms and (budget <= 0 or work <= 0 and (not fetched or s.chunk == 1)) then break end
  if not fetched then fetch(s) end
  local row = s.rows[s.at]
  if row then
    local fields, size = row[2], 0
    local parts = #fields
    -- One with too many fields is walked once only.
    if parts <= {2 * ENTRY_FIELDS} then
      for i = 1, parts do size = size + #fields[i] end
    end
    local seen, sent = size, size
    if parts > {2 * ENTRY_FIELDS} or size > {ENTRY_BYTES} then
      s.chunk = 1
      row = cut(row[1], fields)
      fields, seen, sent = row[2], row[3], 0
      for i = 1, #fields do sent = sent + #fields[i] end
    end
    work = work - seen - {_PART_WORK} * parts
    budget = budget - sent - {_OVERHEAD} * #fields
    s.ms, s.seq = row[1]:match('(%d+)-(%d+)')
    s.taken, s.at = s.taken + 1, s.at + 1
    s.entries[s.taken] = row
  else
    s.open, open = false, open - 1
  end
end

local answer = {{}}
for n, s in ipairs(streams) do answer[n] = {{s.drained, s.entries, s.refused}} end
return answer
"""


class Pace:
    """Chooses how many entries one command takes, from the time of earlier reads.

    Large entries, and entries that are quick to find, are taken one by one.
    """

    def __init__(self) -> None:
        self._chunk = 1
        self._search_s = _FIRST_SEARCH_S

    def arguments(self, *, least: bool) -> tuple[int, int]:
        """Return the script's last two arguments; `least` is for a read of one entry."""
        return 1 if least else self._chunk, round(min(self._search_s, _MOST_SEARCH_S) / _WORK_S * WORK_BYTES)

    def learn(self, seconds: float, entries: Sequence[Entry]) -> None:
        """Record how long a read of these entries took."""
        if any(entry.excess for entry in entries):
            self._chunk = 1
            return
        # Each stream ends with a command that finds nothing.
        self._search_s = seconds / (len(entries) / self._chunk + 2)
        if len(entries) >= _TELLING_ENTRIES:
            self._chunk = CHUNK if self._search_s > SEARCH_S else 1


def batches(streams: Sequence[Stream], answer: Sequence[Any]) -> list[Batch]:
    """Decode the script's answer, one batch per stream."""
    return [
        Batch([_entry(stream, row) for row in rows], drained=bool(drained), refused=refused.decode())
        for stream, (drained, rows, refused) in zip(streams, answer, strict=True)
    ]


def _entry(stream: Stream, row: Sequence[Any]) -> Entry:
    entry_id, flat, *rest = row
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    if not rest:
        return Entry.of(stream, EntryId.parse(entry_id.decode()), pairs)
    size, fields, digest, repeated = rest
    excess = Excess(size, fields, digest.decode())
    return Entry.of(stream, EntryId.parse(entry_id.decode()), pairs, repeated=repeated, excess=excess)
