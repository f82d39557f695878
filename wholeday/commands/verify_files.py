"""Verify the files of a day: hashes and counts, clean files against raw files, manifests against the marker."""

import datetime as dt
import re
import tempfile
from collections.abc import Generator, Iterator
from typing import Any, TypeVar

import msgspec

from wholeday.errors import FolderError, PipelineError
from wholeday.load import day as load_stage
from wholeday.load.audit import Finding, compare
from wholeday.schema.marker import Marker
from wholeday.storage.day_folder import MANIFEST, STAGES, DayFolder, Stage
from wholeday.storage.known_source import join_accepted
from wholeday.storage.lines import unpack
from wholeday.storage.manifest import CleanManifest, Part, RawManifest
from wholeday.storage.names import strip_run
from wholeday.storage.parquet import open_rows
from wholeday.storage.workspace import Workspace
from wholeday.tasks.workflow import spell_command
from wholeday.transform import parts

Manifest = TypeVar("Manifest", RawManifest, CleanManifest)


def verify_files(
    workspace: Workspace, date: dt.date, marker: Marker | None
) -> Generator[Finding, None, tuple[RawManifest | None, CleanManifest | None]]:
    """Compare the folders of a day with their manifests, each other and the marker. Return the sound manifests."""
    raw_folder, clean_folder = (workspace.folder(stage, date) for stage in STAGES)
    pruned = bool(marker and marker.pruned_at)
    required = bool(marker) and not pruned
    raw, raw_findings = _read_folder(raw_folder, "raw", RawManifest, required)
    clean, clean_findings = _read_folder(clean_folder, "clean", CleanManifest, required and bool(raw))
    yield from [*raw_findings, *clean_findings]
    expected: dict[str, Any] = {"clean_sha256": clean.sha256} if clean else {}
    if raw and clean and clean.raw_sha256 != [part.sha256 for part in raw.parts]:
        yield Finding(date, "clean", "does not belong to the raw files: reprocess the day")
        expected = {"raw_sha256": raw.sha256}
    elif raw and clean:
        left = {"records": raw.records - raw.forgotten}
        yield from compare(date, "clean", {"records": clean.rows + clean.rejected}, left)
        if clean.transform_version == workspace.version and not [*raw_findings, *clean_findings]:
            yield from _compare_transform(workspace, raw_folder, raw, clean_folder, clean)
        # `rejected` and `forgotten` differ: a reject in the files with an erased key counts as forgotten in the marker.
        day = load_stage.read_clean(workspace, date).metadata
        others = ("transform_version", "rejected", "forgotten")
        expected = {name: value for name, value in vars(day).items() if name not in others}
    if marker:
        yield from _compare_marker(workspace, marker, expected, raw, clean)
    return None if raw_findings else raw, None if clean_findings else clean


def _compare_marker(
    workspace: Workspace,
    marker: Marker,
    expected: dict[str, Any],
    raw: RawManifest | None,
    clean: CleanManifest | None,
) -> Iterator[Finding]:
    date = marker.date
    behind = _list_erased_hashes(marker, raw, clean)
    if behind:
        expected = {name: value for name, value in expected.items() if name not in behind}
        again = spell_command(workspace.name, "forget")
        yield Finding(date, "loads", f"forget erased lines of the files, but not of the tables yet: run {again}")
    if "accepted" in expected and marker.accepted:  # a load may accept another source
        expected = expected | {"accepted": join_accepted(expected["accepted"], marker.accepted)}
    # The audit reports a null. In `source` a null may be right.
    stored = {
        name: value for name, value in msgspec.structs.asdict(marker).items() if value is not None or name == "source"
    }
    yield from compare(date, "loads", stored, {name: value for name, value in expected.items() if name in stored})
    if marker.transform_version != workspace.version:
        next_step = "its raw files are pruned" if marker.pruned_at and not raw else "reprocess it"
        yield Finding(date, "loads", f"the day was transformed by another version: {next_step}", remark=True)


def _list_erased_hashes(marker: Marker, raw: RawManifest | None, clean: CleanManifest | None) -> set[str]:
    """Return the hashes in the marker that are older than an erasure: `forget` is running, or was interrupted."""
    manifests = {"raw_sha256": raw, "clean_sha256": clean}
    return {
        name
        for name, manifest in manifests.items()
        if manifest
        and getattr(marker, name) != manifest.sha256
        and getattr(marker, name) in {erasure.sha256 for erasure in manifest.erasures}
    }


def _read_folder(
    folder: DayFolder, stage: Stage, kind: type[Manifest], required: bool
) -> tuple[Manifest | None, list[Finding]]:
    """Read the manifest of a folder, if possible, and check its files. They are `required` for a loaded day."""
    files = folder.list_parts()
    if not folder.exists():
        if files:
            what = f"{folder} has files, but no {MANIFEST}: the day is incomplete"
            return None, [Finding(folder.date, stage, what, remark=not required)]
        next_step = "restore them from a copy" if stage == "raw" else "reprocess the day"
        return None, [Finding(folder.date, stage, f"the files are missing: {next_step}")] if required else []
    try:
        manifest = folder.read_manifest(kind)
    except FolderError as error:
        return None, [Finding(folder.date, stage, str(error))]
    groups = _group_parts(manifest)
    named = {part.name: part for group in groups.values() for part in group}
    faults = [f"{name}: not in the manifest" for name in sorted(files - named.keys())]
    faults += [fault for part in named.values() if (fault := _check_part(folder, part))]
    faults += [f"date is {manifest.date}, should be {folder.date}"] if manifest.date != folder.date else []
    for name, group in groups.items():
        stored, total = getattr(manifest, name), sum(part.records for part in group)
        total += manifest.forgotten if isinstance(manifest, RawManifest) else 0
        faults += [f"{name} is {stored}, the parts have {total}"] if stored != total else []
    return manifest, [Finding(folder.date, stage, fault) for fault in faults]


def _group_parts(manifest: RawManifest | CleanManifest) -> dict[str, list[Part]]:
    """Return the parts by the field of the manifest that counts their records."""
    if isinstance(manifest, RawManifest):
        return {"records": manifest.parts}
    return {"rows": manifest.parts, "rejected": manifest.rejects}


def _check_part(folder: DayFolder, part: Part) -> str | None:
    """Return how a part differs from the manifest; None if it does not."""
    try:
        data = folder.read(part)
    except FolderError as error:
        return str(error)
    records = _count_records(part.name, data)
    return None if records == part.records else f"{part.name}: {records} records, the manifest says {part.records}"


def _count_records(name: str, data: bytes) -> int:
    if not name.endswith(".parquet"):
        return len(unpack(data))
    return int(open_rows(data).metadata.num_rows)


def _compare_transform(
    workspace: Workspace, raw_folder: DayFolder, raw: RawManifest, clean_folder: DayFolder, clean: CleanManifest
) -> Iterator[Finding]:
    """Transform the raw files again into a temporary folder, and compare the parts."""
    with tempfile.TemporaryDirectory() as scratch:
        again = DayFolder(scratch, "clean", workspace.name, raw.date)
        again.clear()
        try:
            results = parts.transform_parts(workspace, raw_folder, raw.parts, again)
        except PipelineError as error:
            yield Finding(raw.date, "clean", f"cannot transform the raw files again: {error}")
            return
        made = {part.name: part for result in results for part in (result.clean, result.rejects) if part}
        # A part with erased lines has a new name that ends in -r1, -r2, …
        kept = {re.sub(r"-r\d+\.", ".", strip_run(part.name)): part for part in (*clean.parts, *clean.rejects)}
        for name in sorted(made.keys() | kept.keys()):
            new, old = made.get(name), kept.get(name)
            if not old:
                yield Finding(raw.date, "clean", f"{name} is missing from the manifest: the raw files yield it")
            elif not new:
                yield Finding(raw.date, "clean", f"{name} is in the manifest: the raw files do not yield it")
            elif new.sha256 != old.sha256:
                same = _hold_same(name, again.read(new), clean_folder.read(old))
                what = "other bytes, but the same rows as" if same else "other rows than"
                yield Finding(raw.date, "clean", f"{old.name} has {what} a new transform of the raw files", remark=same)


def _hold_same(name: str, one: bytes, other: bytes) -> bool:
    """Tell whether two clean parts hold the same rows. Another version of a library may write other bytes."""
    if not name.endswith(".parquet"):
        return unpack(one) == unpack(other)
    return bool(open_rows(one).read().equals(open_rows(other).read()))
