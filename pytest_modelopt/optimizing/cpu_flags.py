"""What the processor is and can do, as the operating system says: the one place that reads it. Imports no torch."""

from __future__ import annotations

import platform

from pytest_modelopt import system

CPUINFO = system.PROC / "cpuinfo"


def name_and_flags() -> tuple[str, frozenset[str]]:
    """The processor's name, and the names of its features (`flags` on x86, `Features` on ARM).

    Without /proc/cpuinfo, as on macOS and Windows, no feature is known and the set is empty.
    """
    name, flags = platform.processor() or platform.machine(), frozenset[str]()
    try:
        lines = CPUINFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return name, flags
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() == "model name":
            name = value.strip()
        elif key.strip().lower() in ("flags", "features"):
            flags = frozenset(value.split())
            break
    return name, flags


def has_all_of_one(alternatives: tuple[frozenset[str], ...]) -> bool:
    """Whether the processor has every feature of at least one of the sets."""
    _, flags = name_and_flags()
    return any(needed <= flags for needed in alternatives)


def vnni() -> bool:
    """Whether int8 products are summed up in hardware without overflow: VNNI on x86, dot product or i8mm on ARM."""
    return has_all_of_one(tuple(frozenset({flag}) for flag in ("avx512_vnni", "avx_vnni", "asimddp", "i8mm")))


def adds_in_16_bits() -> bool:
    """Whether int8 kernels add pairs of products in 16 bits, which overflow where weights use all 8 bits: x86 without
    VNNI, and where nobody knows."""
    if platform.machine().lower() not in ("x86_64", "amd64", "i386", "i686"):
        return False
    _, flags = name_and_flags()
    return not flags & {"avx512_vnni", "avx_vnni"}
