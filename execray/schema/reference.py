"""Prints docs/reference/events.md from the catalogue: `python -m execray.schema.reference`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from execray.schema.actor import HEAD_FIELDS
from execray.schema.catalog import ACTOR_FIELDS, CATALOG_VERSION, EVENTS, EventType, Field, Flag
from execray.schema.kinds import CONSTANTS

_FLAGS = {
    Flag.PATH_TRUNCATED: "a path was longer than 4,095 bytes or deeper than 128 levels: it is cut in front",
    Flag.ARGV_TRUNCATED: "arguments past 16,384 bytes were left out",
    Flag.CONTENT_TRUNCATED: "more than the first 256 bytes were written or read; or of an environment there was more than there"
    " is room for",
    Flag.RAWPATH_TRUNCATED: "the caller's spelling was longer than 4,095 bytes",
    Flag.UNREADABLE: "the caller's memory could not be read: the value is unknown, not absent",
    Flag.COMPAT_ABI: "the call came through the 32-bit entry point",
    Flag.OLD_CREDS_UNKNOWN: "the ids before a set*id call were not on record",
    Flag.PATH_UNRESOLVED: "a path was put together from a directory and the caller's name: symbolic links in it are not resolved,"
    " and the name may have been rewritten",
    Flag.CWD_TRUNCATED: "a working directory was longer than 4,095 bytes or deeper than 128 levels: it is cut in front; or it is"
    " unsure in one of the next two ways",
    Flag.PATH_TORN: "something was renamed while a path was built: it may be a path that never was",
    Flag.PATH_DETACHED: "a path begins at a mount that is in nobody's tree: it was unmounted, or never mounted",
    Flag.DELETED: "the file, or the directory where its name begins, had no name any more (also O_TMPFILE)",
    Flag.IO_URING: "an operation of an io_uring: of its descriptor only the file is known; its names are the kernel's own copies",
    Flag.GATE_DROP: "the kernel gate is only watched (`tracerd.gate: shadow`), and would have dropped this event",
    Flag.KILLED: "the kernel killed the process in this call (`tracerd.inline: on`)",
}


def _row(field: Field) -> str:
    notes = []
    if field.aliases:
        notes.append("also " + ", ".join(f"`{alias}`" for alias in field.aliases))
    if field.constants:
        notes.append(f"constants `{field.constants}*`" if field.constants != "ACCESS_" else "`READ`, `WRITE`")
    if field.words:
        notes.append("one of " + ", ".join(f"`{word}`" for word in field.words))
    if field.spoofable:
        notes.append("can be forged by the process")
    if field.cut_by:
        notes.append("may be cut")
    doc = field.doc + (f" In {field.unit}." if field.unit else "")
    return f"| `{field.name}` | {field.kind.value} | {doc} | {'; '.join(notes)} | {f'`{field.ecs}`' if field.ecs else ''} |"


def _table(fields: Iterable[Field]) -> Iterator[str]:
    yield "| field | type | meaning | notes | ECS |"
    yield "|---|---|---|---|---|"
    yield from (_row(field) for field in fields)


def _event(event: EventType) -> Iterator[str]:
    yield f"\n## {event.name}\n"
    yield event.doc + "\n"
    if event.aliases:
        yield "Also written " + ", ".join(f"`{alias}`" for alias in event.aliases) + ".\n"
    when = (
        "told when it has happened" if event.fact else "told when the call has returned: `ret` says whether it failed"
    )
    yield "Seen at " + "; ".join(f"`{hook}`" for hook in event.hooks) + f", {when}.\n"
    yield from _table(event.fields)


def page() -> Iterator[str]:
    """Yields the page's lines."""
    yield "# Events and fields\n"
    yield f"Catalogue version {CATALOG_VERSION}. Generated from `execray/schema` by `make docs`.\n"
    yield "Every event also has the two fields behind this, and those of the actor below; `parent.FIELD` is the same field of the"
    yield "process that created the actor. A field that has no value is *missing*, and every comparison with it is false.\n"
    yield from _table(HEAD_FIELDS)
    yield ""
    yield "## The actor\n"
    yield "What every event says of the process that did it, as it was at that moment.\n"
    yield from _table(ACTOR_FIELDS)
    for event in EVENTS:
        yield from _event(event)
    yield "\n## Flags\n"
    yield "An event's `flags` list what its capture could not do whole. A match that rests on a cut value is marked"
    yield "`partial_evidence` and never kills.\n"
    yield "| flag | meaning |"
    yield "|---|---|"
    yield from (f"| `{flag.name.lower()}` | {doc} |" for flag, doc in _FLAGS.items() if flag.name)
    yield "\n## Named constants\n"
    for prefix, members in CONSTANTS.items():
        yield f"- `{prefix}`: " + ", ".join(f"`{name}`" for name in sorted(members))


if __name__ == "__main__":
    print("\n".join(page()))
