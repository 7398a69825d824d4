"""Head against base: what a run compared this revision with, and what became looser on the way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

BaseStatus = Literal["compared", "new", "unpaired", "failed", "unusable"]
LooseningKind = Literal["relaxed", "removed", "waived", "warn"]


@dataclass(frozen=True, slots=True)
class Base:
    """What the same variant is at the base. In its case `reference` is the base's measurement, `variant` is head's."""

    name: str
    """'1a2b3c4d5e6f', the commit, or 'saved.json', the record."""
    status: BaseStatus
    """compared: both were measured. new: the base does not have it, nothing is judged. unpaired: the base
    may have it under another name, but under which one is not known, so its limits are inconclusive. failed: the base's
    own code fails at it, so its limits are inconclusive. unusable: the base is there but could not be brought to run
    (Git LFS pointers, modules of head in its place), so its limits count as not measured."""
    why: str = ""
    """One sentence for every status but 'compared'."""
    notes: tuple[str, ...] = ()
    """What else should be known: the data changed, ..."""


@dataclass(frozen=True, slots=True)
class Loosening:
    """One limit that head states less strictly than the base did."""

    case: str
    """'digits-vit/int8-dynamic'."""
    limit: str
    kind: LooseningKind
    old: str
    """As the author wrote it: '3 MiB'."""
    new: str
    """As the author wrote it; 'removed', 'waived until 2027-01-31: reason', '3 MiB (warn)'."""
    by: str
    """By how much, in words: '+33%', '0.5 pp'; empty where there is no number."""
    file: str
    line: int
    """Where head states it, or the case that lacks it; the file's first line where head has no such case."""


@dataclass(frozen=True, slots=True)
class Against:
    """The base of a run."""

    kind: Literal["revision", "record"]
    asked: str
    """As the user wrote it: 'merge-base:origin/main', 'saved.json'."""
    base: str
    """The base's commit hash, or when the saved record was started."""
    head: str | None
    """Head's commit hash; None where it is in no git repository."""
    has_uncommitted: bool
    """Whether head is that commit with changes that are in no commit."""
    loosened: tuple[Loosening, ...] = ()
    removed: tuple[str, ...] = ()
    """Cases that the base has and head has not: 'digits-vit/int8-dynamic'."""
    unknown: str = ""
    """Why it is not known whether limits became looser: the base's budgets file cannot be read, ...; '' where it is."""
    notes: tuple[str, ...] = ()
    """Sentences about the comparison as a whole: dependencies changed, ..."""
