"""Text that commands, hides, breaks lines or is none; budgets files and recipe expressions that hold it."""

from __future__ import annotations

import json
import random
import unicodedata

TEXTS = (
    "\n::error::x",
    "\n  ::stop-commands::x",
    "::set-output name=a::b",
    "x\r::error::y",
    "x\u2028::error::y\u2029::error::z\x85::error::z\x1e::error::z",
    "\n\u200b::error::x",
    ":\u200b:error::x",
    "\x1b[31m::error::x",
    "x ##[error]y",
    "##vso[task.setvariable variable=a]b",
    "#\u2060#[command]x",
    "##teamcity[buildStop]",
    "\x1b[2J\x1b]8;;http://e.example\x07x\x1b]8;;\x07",
    "\x1b]0;title",
    "\x1bP1$r\x1b\\",
    "\x00\x07\x08\x9b31m\x90x\x9c\x7f",
    "\u202egnp\u2066.exe\u2069\u061c",
    "a\u200b\u200c\u200d\u2060\ufeff\u00adb",
    "\U000e0041\U000e0042\ufff9\ufffa\ufffb",
    "\ue000\uffff\U0010ffff",
    "\ud800",
    "e\u0301" * 200,
    "<script>alert(1)</script><!--",
    "</details>\n# x\n| a | b |\n|-|-|\n[x](javascript:alert(1)) @everyone ![](//e.example)",
    "`" * 7,
    "${{ secrets.TOKEN }} $(id) `id`; rm -rf /",
    "../../../etc/passwd",
    "%0A::error::x",
    "",
)


_REPEATED = tuple("a1 :+-(){}[]<>*_`|&\\.,;=@#!?\"'/\n\t\x1b\u200b\u0301\u00e9")


def text(rng: random.Random) -> str:
    if rng.random() < 0.08:  # what takes time that grows with the square of its length
        return "".join(rng.choice(_REPEATED) for _ in range(rng.choice((1, 1, 2, 3)))) * 50_000
    if rng.random() < 0.7:
        return rng.choice(TEXTS) + (rng.choice(TEXTS) if rng.random() < 0.2 else "")
    kinds = ((0, 0x20), (0x20, 0x7F), (0x80, 0xA0), (0x2000, 0x2070), (0xD800, 0xE100), (0xFE00, 0xFF00), (0, 0x110000))
    return "".join(chr(rng.randrange(*rng.choice(kinds))) for _ in range(rng.randrange(1, 30)))


def spoiled(rng: random.Random, content: bytes) -> bytes:
    """Cut off, with bytes changed, repeated, or in another encoding."""
    at = rng.randrange(len(content) + 1)
    made = (
        content[:at],
        content[:at] + rng.randbytes(rng.randrange(1, 9)) + content[at + 1 :],
        content[:at] + content[:at] + content[at:],
        b"\xef\xbb\xbf" + content,
        content.decode("utf-8", "replace").encode("utf-16"),
        content * 2,
        rng.randbytes(200),
        b"",
    )
    return rng.choice(made)


def is_harmless(told: str) -> bool:
    """Whether a terminal and a CI system show it as it is. Line feeds end lines; all else is printable, no command."""
    return all(
        all(unicodedata.category(character) not in ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp") for character in line)
        and not line.strip().startswith("::")
        and not any(command in line for command in ("##[", "##vso[", "##teamcity["))
        for line in told.split("\n")
    )


# --- expressions -----------------------------------------------------------------------------------------------------

_NAMES = (
    *("int8-dynamic", "int8-static", "bf16", "low-rank", "prune-unstructured", "prune-structured", "fold-batchnorm"),
    *("channels-last", "compile", "onnxruntime", "INT8_dynamic", "int8", "", "original", "__class__", "a" * 5_000),
)
_KEYS = ("ratio", "amount", "backend", "per_channel", "mode", "x", "", "ratio ", "__init__")
_VALUES = (
    *("0.5", "0.501", "1", "0", "-1", "1e400", "9" * 400, "9" * 5_000, "nan", "inf", "0x10", "50%", "true", "'a'", '"'),
    *("'", "(", "1e-400", "1_0", "\u0661", "None", "[1]", "{}", "lambda: 0", "__import__('os')"),
)


def expression(rng: random.Random) -> str:
    steps = []
    for _ in range(rng.choice((1, 1, 1, 2, 3, 30))):
        given = ", ".join(
            f"{rng.choice(_KEYS)}{rng.choice(('=', '=', '=', ' = ', '', '=='))}{rng.choice(_VALUES)}"
            for _ in range(rng.choice((0, 1, 1, 2, 9)))
        )
        steps.append(f"{rng.choice(_NAMES)}({given})" if rng.random() < 0.7 else rng.choice(_NAMES))
    if rng.random() < 0.3:
        known = ("int8-dynamic", "bf16", "low-rank(ratio=0.5)", "prune-unstructured(ratio=0.3)", "fold-batchnorm")
        steps = [f" {step} " for step in rng.sample(known, rng.choice((1, 2, 3)))]
    made = rng.choice((" + ", "+", " ++ ", " ", ",")).join(steps)
    if rng.random() < 0.4:
        at = rng.randrange(len(made) + 1)
        made = made[:at] + rng.choice((text(rng), "(", ")", "'", '"', "+", ",", "=", "(" * 3_000)) + made[at:]
    return made


# --- budgets files ---------------------------------------------------------------------------------------------------

_BUDGETS = """version: 1
defaults: {threads: 1, time_limit: 20 s, inference: set}
models:
  reader:
    factory: shop.models:reader
    data: shop.models:data
    calibration: shop.models:calibration
    metric: {name: accuracy}
    original: {max_memory: 6 MiB, min_accuracy: 97%}
    budget: &common {max_accuracy_drop: 1 pp, max_memory: 6 MiB}
    regression: {max_size_growth: 5%, max_slowdown: 20%}
    recipes:
      int8-dynamic: {min_speedup: 1.3x, max_size: {limit: 3 MiB, level: warn}}
      prune-unstructured(ratio=0.5): {<<: *common, max_flips: 2%}
    candidates:
      student: {factory: shop.models:student, min_speedup: 2x}
      shipped: {file: dist/reader.onnx, max_flips: 1%, inputs: {image: 0}}
waivers:
  - {case: reader/int8-dynamic, limit: min_speedup, until: 2099-01-31, reason: slow today, ceiling: 1.1x}
"""
_TOKENS = (
    *(
        "6 MiB",
        "1.3x",
        "1 pp",
        "20%",
        "accuracy",
        "max_size",
        "max_memory",
        "reader",
        "int8-dynamic",
        "shop.models:data",
    ),
    *("student", "dist/reader.onnx", "../reader.onnx", "original"),
    *("version: 1", "2099-01-31", "warn", "{limit: 3 MiB, level: warn}", "20 s", "<<"),
)
_VALUES_OF_YAML = (
    *(
        "6",
        "6 mib",
        "-1 MiB",
        "1e300 MiB",
        "1e999",
        ".inf",
        ".nan",
        "0x1F",
        "010",
        "1:30",
        "1_000",
        "~",
        "yes",
        "[]",
        "{}",
    ),
    *(
        "!!python/object/apply:os.system [id]",
        "!!binary aGk=",
        "&a [*a]",
        "*unknown",
        "<<: *common",
        "? [a]",
        "1 pp",
        "0%",
    ),
    *(
        "101%",
        "-5%",
        "0.0001 pp",
        "6 MiB # c",
        "|\n    6 MiB",
        '"\\x1b[2J"',
        '"\\u2028::error::x"',
        '"\\ud800"',
        "'6 MiB'",
    ),
    *(
        "@x",
        "`x`",
        "2026-02-30",
        "1" * 400,
        "[" * 100,
        "{a: " * 60,
        "- " * 60,
        "9" * 5_000,
        "1 \u2028MiB",
        "\ufeff",
        "\x07",
    ),
)


_AMOUNTS = {
    "max_memory": ("6 MiB", "6.5 MiB", "6e3 kB", "  6  MiB", "'6 MiB'", "6 GB", "512 B", "{limit: 6 MiB, level: warn}"),
    "max_accuracy_drop": ("1 pp", "0.01", "0.5 pp", "1e-3", ".5e-1", "0 pp", "0.0"),
    "min_speedup": ("1.3x", "1.3", "+30%", "-10%", "1.3 x", "1"),
    "max_flips": ("2%", "0.02", "0", "1", "100%", "1.0"),
    "max_size_growth": ("5%", "0.05", "150%", "0", "1", "1.0"),
}
"""Other ways to state a limit, all of which are taken."""


def budgets(rng: random.Random) -> bytes:
    made = _BUDGETS
    for name, amounts in _AMOUNTS.items():
        made = made.replace(f"{name}: {amounts[0]}", f"{name}: {rng.choice(amounts)}", rng.choice((0, 1, 1)))
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        how = rng.random()
        if how < 0.55:
            value = rng.choice(_VALUES_OF_YAML) if rng.random() < 0.7 else json.dumps(text(rng))
            made = made.replace(rng.choice(_TOKENS), value, rng.choice((1, -1)))
        elif how < 0.7:
            made = made.replace("prune-unstructured(ratio=0.5)", json.dumps(expression(rng)))
        elif how < 0.85:
            lines = made.split("\n")
            at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
            lines[at] = rng.choice((lines[other], "", lines[at] + lines[at], f"  {lines[at]}", text(rng)))
            made = "\n".join(lines)
        else:
            at = rng.randrange(len(made))
            made = made[:at] + rng.choice((text(rng), ":", "- ", "  ", "\t", "{", "]", "'", "#", "---\n")) + made[at:]
    content = made.encode("utf-8", "surrogatepass")
    return spoiled(rng, content) if rng.random() < 0.05 else content
