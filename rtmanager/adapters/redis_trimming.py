"""Trims the oldest entries of an input stream up to what every group has acknowledged, in one step.

Redis has no such command. Between two commands another client may set a group back (`XGROUP SETID`) or create one, so
a script reads the groups and trims.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rtmanager.domain.jobs import EntryId
from rtmanager.ports.streams import Trimmed

#: An id before all entries: nothing is deleted.
NOTHING = "0-0"

#: KEYS: a stream. ARGV: our group, the first id that is too young, the last durable id, and about how many entries to
#: delete. The last entry delivered to each group stays, so the bound needs no 64-bit arithmetic.
#: Whole nodes are deleted first, which is cheapest; the last, partly deletable node entry by entry.
TRIM = """
local key, ours, young, durable, limit = KEYS[1], ARGV[1], ARGV[2], ARGV[3], ARGV[4]

local function less(a, b)
  local a_ms, a_seq = a:match('(%d+)-(%d+)')
  local b_ms, b_seq = b:match('(%d+)-(%d+)')
  if a_ms ~= b_ms then return #a_ms < #b_ms or #a_ms == #b_ms and a_ms < b_ms end
  return #a_seq < #b_seq or #a_seq == #b_seq and a_seq < b_seq
end
local function field(reply, name)
  for i = 1, #reply, 2 do
    if reply[i] == name then return reply[i + 1] end
  end
end
local function refused(reply)
  local text = type(reply) == 'table' and reply.err
  return text and (text:find('NOPERM', 1, true) or text:find("can't run this command", 1, true)) and text
end

local groups = redis.pcall('XINFO', 'GROUPS', key)
if groups.err then
  if groups.err:find('no such key', 1, true) or groups.err:sub(1, 9) == 'WRONGTYPE' then return {} end
  return groups
end
local bound, holder, own = nil, '', nil
for _, group in ipairs(groups) do
  local name, reached = field(group, 'name'), field(group, 'last-delivered-id')
  local pending = redis.pcall('XPENDING', key, name)
  if refused(pending) then return {0, '', '', pending.err} end
  if pending.err then return pending end
  if pending[2] and less(pending[2], reached) then reached = pending[2] end
  if name == ours then own = reached end
  if not bound or less(reached, bound) then bound, holder = reached, name end
end
if not own then return {} end
if less(durable, bound) then bound, holder = durable, ours end
local held = less(bound, young)
if not held then bound = young end

local function first()
  local rows = redis.call('XRANGE', key, '-', '+', 'COUNT', 1)
  return rows[1] and rows[1][1]
end
local oldest, deleted = first(), 0
if oldest and less(oldest, bound) then
  deleted = redis.pcall('XTRIM', key, 'MINID', '~', bound, 'LIMIT', limit)
  if deleted == 0 then deleted = redis.pcall('XTRIM', key, 'MINID', '=', bound) end
  if refused(deleted) then return {0, '', '', deleted.err} end
  if type(deleted) == 'table' then return deleted end
  oldest = first()
end
if held and not (oldest and less(oldest, young)) then held = false end
local from = oldest and less(oldest, own) and oldest or own
return {deleted, from, held and holder or '', ''}
"""


def bound(older_than: EntryId | None) -> str:
    """Format the argument `young` of the script."""
    return NOTHING if older_than is None else str(older_than)


def trimmed(answer: Sequence[Any]) -> Trimmed:
    """Decode the script's answer."""
    if not answer:
        return Trimmed()
    deleted, first, held_by, refused = answer
    return Trimmed(
        deleted,
        EntryId.parse(first.decode()) if first else None,
        held_by.decode(errors="backslashreplace"),
        refused.decode(errors="replace"),
    )
