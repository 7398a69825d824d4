"""Targets: kinds of machines by what they are, and whether a machine is one of a kind."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from pytest_modelopt.results.figures import format_count
from pytest_modelopt.results.record import Environment, Record, Target


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What a machine is, as far as targets ask for it."""

    architecture: str
    """As `platform.machine()` says it: 'x86_64', 'aarch64'."""
    instructions: frozenset[str]
    cores: int
    gpu: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    """Of the runtimes that are installed: 'onnxruntime' -> '1.23.2'."""


_SAME_ARCHITECTURE = {"amd64": "x86_64", "arm64": "aarch64"}


def architecture_of(name: str) -> str:
    """One name for each architecture: systems differ on it."""
    return _SAME_ARCHITECTURE.get(name.lower(), name.lower())


def fingerprint_of(machine: Environment) -> Fingerprint:
    """That of a machine of a record."""
    versions = {**machine.packages, "torch": machine.torch, "python": machine.python}
    instructions = frozenset(machine.cpu_flags)
    return Fingerprint(machine.architecture, instructions, machine.cpu_count, machine.gpu or "", versions)


def format_kind(target: Target) -> str:
    """'x86_64 with avx512_vnni, 8 cores, onnxruntime >=1.20': what a machine of it is."""
    processor = " with ".join(filter(None, (target.architecture, " and ".join(target.instructions))))
    cores = format_count(target.cores, "core") if target.cores else ""
    versions = (f"{name} {asked}" for name, asked in target.runtime.items())
    device = target.gpu or (target.device and f"device {target.device}")
    return ", ".join(filter(None, (processor, device, cores, *versions)))


def is_for(target: Target, device: str) -> bool:
    """Whether a case that runs on `device` may count for the target."""
    return target.device in ("", device.partition(":")[0])


def lacks(target: Target, machine: Fingerprint) -> tuple[str, ...]:
    """Why the machine is none of this kind, each reason as the end of 'it ...'; empty where it is one."""
    found = []
    if target.architecture and architecture_of(target.architecture) != architecture_of(machine.architecture):
        found.append(f"is {machine.architecture or 'of an unknown architecture'} and not {target.architecture}")
    if missing := [name for name in target.instructions if name not in machine.instructions]:
        found.append(f"lacks {' and '.join(missing)}")
    if target.cores > machine.cores:
        found.append(f"has {machine.cores} of {target.cores} cores")
    if target.device == "cuda" and (not machine.gpu or target.gpu.lower() not in machine.gpu.lower()):
        found.append(f"has {machine.gpu} and not {target.gpu}" if machine.gpu else "has no NVIDIA GPU")
    for name, asked in target.runtime.items():
        version = machine.versions.get(name)
        if version is None:
            found.append(f"has no {name}")
        elif not _fits(version, asked):
            found.append(f"has {name} {version} and not {asked}")
    return tuple(found)


def _fits(version: str, asked: str) -> bool:
    from packaging.specifiers import SpecifierSet
    from packaging.version import Version

    try:
        return SpecifierSet(asked).contains(Version(version), prereleases=True)
    except ValueError:  # a record may claim anything
        return False


@dataclass(frozen=True, slots=True)
class OnTarget:
    """What a record has of one target."""

    target: Target
    is_demanded: bool
    """Whether a case that was not measured there makes the run red."""
    machines: tuple[int, ...]
    """Those of the record that are one, as `Case.machine` counts them."""
    measured: int
    """Cases that ran there."""
    left: tuple[str, ...]
    """Ids of those that ran on other machines only."""

    @property
    def is_missing(self) -> bool:
        return self.measured == 0 or bool(self.left)


def on_targets(record: Record) -> tuple[OnTarget, ...]:
    """What the record has of each of its targets: a merged one is about all, one of a job about those it names."""
    machines = [None if each is None else fingerprint_of(each) for each in (record.environment, *record.other_machines)]
    found = []
    names_some = bool(record.of_targets) and {target.name for target in record.targets}.issuperset(record.of_targets)
    for target in record.targets:
        ones = tuple(index for index, each in enumerate(machines) if each is not None and not lacks(target, each))
        ids = dict.fromkeys(case.id for case in record.cases if is_for(target, case.device))
        there = {case.id for case in record.cases if case.machine in ones and is_for(target, case.device)}
        is_demanded = target.name in record.of_targets if names_some else target.is_required
        left = tuple(each for each in ids if each not in there)
        found.append(OnTarget(target, is_demanded, ones, len(there), left))
    return tuple(found)


def targets_of(record: Record, machine: int) -> tuple[str, ...]:
    """The names of the targets that a machine of the record is."""
    environment = (record.environment, *record.other_machines)[machine]
    if environment is None:
        return ()
    found = fingerprint_of(environment)
    return tuple(target.name for target in record.targets if not lacks(target, found))
