"""Erase lines from the files of a day.

Responsibilities: new parts without the lines, a new list of parents, and the manifests that name them. The day changes
in one step, when its raw manifest is replaced; the clean manifest is prepared by then. An unfinished day is cleared, as
its next run extracts it again.
Non-goals: a loaded day without its manifest. No run extracts it again, so a person decides.
"""

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress

import msgspec

from wholeday.commands.forget.search import DayFiles, Replaced, Search, name_revision, read_clean_manifest
from wholeday.errors import FolderError
from wholeday.load.warehouse import open_warehouse
from wholeday.storage.day_folder import MANIFEST, REMEDIES, DayFolder
from wholeday.storage.lines import pack
from wholeday.storage.manifest import CleanManifest, Erasure, Part, RawManifest, digest
from wholeday.storage.parents import Parent, pack_parents
from wholeday.storage.workspace import Workspace


def erase_day(search: Search, date: dt.date) -> tuple[int, int]:
    """Erase the matching lines of a day. Return how many lines are erased now, and ever. Raises FolderError."""
    raw, clean = search.workspace.folder("raw", date), search.workspace.folder("clean", date)
    # No deadlock: an extract task holds the raw lock only, a transform task the clean lock only.
    with raw.lock(), clean.lock():
        if not raw.exists():
            _clear_unfinished(search.workspace, raw, clean)
            return 0, 0
        raw_manifest = raw.read_manifest(RawManifest)
        day = DayFiles(raw, clean, raw_manifest, _open_clean(clean, raw_manifest))
        raw.remove_unnamed([part.name for part in raw_manifest.files])
        if clean_manifest := day.clean_manifest:
            clean.remove_unnamed([part.name for part in (*clean_manifest.parts, *clean_manifest.rejects)])
        new, reasons = write_parts(search, day)
        if not new:
            return 0, raw_manifest.forgotten
        forgotten = _replace_manifests(day, new, reasons)
        return forgotten - raw_manifest.forgotten, forgotten


def _clear_unfinished(workspace: Workspace, raw: DayFolder, clean: DayFolder) -> None:
    """Clear a day without a raw manifest. Raises FolderError if no run would extract it again."""
    if clean.exists() and not raw.has_folder():
        raise FolderError(f"{clean} has no raw files. Delete it, or restore {raw} from a copy")
    marker = open_warehouse(workspace).read_marker(raw.date) if raw.list_parts() else None
    if marker and not marker.pruned_at:
        raise FolderError(
            f"{raw}/{MANIFEST} is missing, and the day is loaded. Restore it from a copy, or {REMEDIES['raw']}"
        )
    _clear(raw)
    _clear(clean)


def _clear(folder: DayFolder) -> None:
    """Remove every file of an unfinished day."""
    if folder.has_folder():
        folder.clear()
        folder.remove_unnamed(named=())


def _open_clean(clean: DayFolder, raw_manifest: RawManifest) -> CleanManifest | None:
    """Return the clean manifest that belongs to the raw files. Clear any other clean day: it is outdated anyway."""
    if manifest := read_clean_manifest(clean, raw_manifest):
        return manifest
    with suppress(FolderError):
        clean.publish_prepared()  # complete an interrupted run
    if not (manifest := read_clean_manifest(clean, raw_manifest)):
        _clear(clean)
    return manifest


def write_parts(search: Search, day: DayFiles) -> tuple[Replaced, Counter[str]]:
    """Write new parts without the matching lines, and a list of parents without them and without erased parents.

    The old files stay. Count the erased rejects by reason.
    """
    new: Replaced = {}
    reasons: Counter[str] = Counter()
    erased: Counter[int] = Counter()
    before = day.read_parents()
    for match in search.search_day(day) if search.can_match(before) else ():
        if not match.numbers:
            continue
        kept = [line for number, line in enumerate(match.lines, 1) if number not in match.numbers]
        new[match.part] = day.raw.write(name_revision(match.part), pack([kept]))
        if match.clean:
            parts, why = match.clean.write_without(match.numbers)
            new |= parts
            reasons.update(why)
        erased.update(match.parents[number - 1] for number in match.numbers if match.parents)
    after = list(_erase_parents(search, before, erased))
    if day.raw_manifest.parents and after != before:
        new[day.raw_manifest.parents] = day.raw.write(name_revision(day.raw_manifest.parents), pack_parents(after))
    return new, reasons


def _erase_parents(search: Search, parents: Iterable[Parent], erased: Mapping[int, int]) -> Iterator[Parent]:
    """Yield the parents that are left, without the number of `erased` records of each position."""
    for number, parent in enumerate(parents):
        if keys := search.list_left(parent):
            yield msgspec.structs.replace(parent, keys=keys, records=parent.records - erased[number])


def _replace_manifests(day: DayFiles, new: Replaced, reasons: Counter[str]) -> int:
    """Replace both manifests, then drop the old parts. Return the number of lines ever erased. Raises FolderError."""
    raw_manifest = _build_raw_manifest(day.raw_manifest, new)
    if day.clean_manifest:
        day.clean.prepare_manifest(_build_clean_manifest(day.clean_manifest, raw_manifest, new, reasons))
    if day.raw.read_manifest(RawManifest) != day.raw_manifest:  # possible in a bucket, which has no locks
        raise FolderError(f"another run changed {day.raw} meanwhile. Run forget again")
    day.raw.replace_manifest(raw_manifest)
    day.raw.remove_unnamed([part.name for part in raw_manifest.files])
    if day.clean_manifest:
        day.clean.publish_prepared()
        clean_manifest = day.clean.read_manifest(CleanManifest)
        day.clean.remove_unnamed([part.name for part in (*clean_manifest.parts, *clean_manifest.rejects)])
    return raw_manifest.forgotten


def _build_raw_manifest(manifest: RawManifest, new: Replaced) -> RawManifest:
    parts, erasure = _replace_parts(manifest.parts, new)
    replaced = [part for part in manifest.files if part in new]
    return msgspec.structs.replace(
        manifest,
        parts=parts,
        parents=manifest.parents and new.get(manifest.parents, manifest.parents),
        forgotten=manifest.forgotten + erasure.lines,
        erasures=[*manifest.erasures, msgspec.structs.replace(erasure, sha256=manifest.sha256, parts=replaced)],
    )


def _build_clean_manifest(
    manifest: CleanManifest, raw_manifest: RawManifest, new: Replaced, reasons: Counter[str]
) -> CleanManifest:
    after, erasure = _replace_parts([*manifest.parts, *manifest.rejects], new)
    parts, rejects = after[: len(manifest.parts)], after[len(manifest.parts) :]
    return msgspec.structs.replace(
        manifest,
        raw_sha256=raw_manifest.hashes,
        rows=sum(part.records for part in parts),
        rejected=sum(part.records for part in rejects),
        reasons=dict(Counter(manifest.reasons) - reasons),
        parts=parts,
        rejects=rejects,
        erasures=[*manifest.erasures, erasure],
    )


def _replace_parts(parts: Iterable[Part], new: Replaced) -> tuple[list[Part], Erasure]:
    """Return the parts after the replacement, and its description for the manifest."""
    before = list(parts)
    after = [part for old in before if (part := new.get(old, old))]
    lines = sum(part.records for part in before) - sum(part.records for part in after)
    return after, Erasure(lines=lines, sha256=digest(before), parts=[part for part in before if part in new])
