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

_PLAIN = """version: 1
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
_SHARED = """version: 1
x-small: &small {max_size: 3 MiB, max_flips: 2%, regression: {max_accuracy_loss: 1 pp}}
defaults:
  device: cpu
  batch_size: 1
  step_limit: 10 min
  metric: accuracy
  budget: {max_accuracy_drop: 1 pp, min_coverage: 50%}
  recipes: {int8-dynamic: {min_speedup: 1.3x}}
base_setup: [python, tools/make_weights.py]
targets:
  server: {architecture: x86_64, instructions: [avx2], cores: 2, required: true, max_memory: 8 MiB, min_speedup: 1.1x}
  gpu: {device: cuda, gpu: H100, runtime: {torch: ">=2.6", onnxruntime: ">=1.20"}}
models:
  "reader-*":
    targets: {server: {max_memory: 7 MiB}}
    data: shop.zoo:held_out
    example_inputs: {name: shop.zoo:image, arguments: {width: 64}}
    budget: {max_memory: 6 MiB, min_memory_reduction: 20%, max_slice_drop: 5 pp}
    regression: {max_size_growth: 5%, max_memory_growth: 2%}
  "reader-n?[r]*": {slices: shop.zoo:of_day, inference: population}
  reader-narrow: {factory: {name: shop.zoo:make, arguments: {width: 64, path: [a, b]}}, recipes: {bf16: *small}}
  reader-served:
    x-own: &own {max_load_time: 400 ms, min_load_speedup: 2x}
    factory: shop.models:reader
    calibration: shop.zoo:training
    call: shop.serving:answer
    optimize: encoder.layers
    batch_of: 8
    threads: 1
    workloads:
      online: {batch_size: 1, device: cpu}
      night: {batch_size: 32, threads: 2, min_speedup: 1.3x, max_p95_latency: 8 ms}
      long: {example_inputs: shop.models:document, max_memory: 40 MiB, time_limit: 10 s}
    original: {max_memory: 6 MiB, max_process_memory: 80 MiB, workloads: {night: {max_memory: 20 MiB}}}
    recipes:
      int8-dynamic:
        <<: *own
        min_size_reduction: 40%
        workloads: {online: {min_speedup: 2x, max_latency: 5 ms}}
        targets: {server: {max_latency: 9 ms}}
    candidates:
      student: {factory: {name: shop.zoo:make, arguments: {width: 8}}, workloads: {night: {min_speedup: 3x}}}
  writer:
    factory: shop.models:writer
    data: shop.models:sequences
    metric: perplexity
    call: {generate: {new_tokens: 64, prompt: 512, step: shop.models:step}}
    budget: {max_first_token_latency: 80 ms, min_decode_speedup: 1.3x, max_cache_memory: 24 MiB, max_accuracy_drop: 0.1}
    regression: {max_slowdown: 20%}
    recipes: {bf16: {min_prefill_speedup: 1.3x, max_flips: 2%}}
waivers:
  - {case: reader-served/int8-dynamic @ night, limit: max_p95_latency, until: 2099-01-31, reason: a new kernel,
     owner: "@ada", ceiling: 12 ms}
  - {case: writer/bf16, limit: max_cache_memory, until: 2099-01-31, reason: wider heads}
"""
_FILES = """version: 1
models:
  shipped:
    file: dist/reader.onnx
    sha256: {reader.onnx: "SUM", reader.onnx.data: "SUM"}
    inputs: {image: 0, size: scale}
    example_inputs: shop.zoo:image
    data: shop.zoo:held_out
    metric: {name: torchmetrics.classification.MulticlassF1Score, arguments: {num_classes: 4}, activation: softmax}
    recipes: {onnxruntime-int8-dynamic: {}}
    candidates:
      mobile: {file: dist/reader.tflite, sha256: "SUM", inputs: {image: 0}, max_size: 3 MiB}
""".replace("SUM", "0f" * 32)
BUDGETS = (_PLAIN, _SHARED, _FILES)
"""Files that are taken."""
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
    *("student", "dist/reader.onnx", "original", "reader-*", "reader-n?[r]*", "x-small", "x-own", "*small", "*own"),
    *("online", "night", "int8-dynamic @ night", "shop.zoo:make", "width", "64", "[a, b]", "encoder.layers", "512"),
    *("generate", "new_tokens", "shop.models:step", "workloads", "batch_size: 32", "80 ms", "24 MiB", "0.1", "image"),
    *("0f0f", "softmax", "tools/make_weights.py", "device: cpu", "@ada", "batch_of: 8", "defaults", "candidates"),
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
    "max_first_token_latency": ("80 ms", "0.08 s", "80000 us", "80e0ms", "{limit: 0.1 min, level: warn}"),
    "max_cache_memory": ("24 MiB", "24.5MiB", "25e6 B", "'1 GiB'"),
    "max_p95_latency": ("8 ms", ".008 s", "8e3 us"),
    "min_load_speedup": ("2x", "2", "+100%", "-50%"),
}
"""Other ways to state a limit, all of which are taken."""


def budgets(rng: random.Random) -> bytes:
    made = rng.choice(BUDGETS)
    for name, amounts in _AMOUNTS.items():
        made = made.replace(f"{name}: {amounts[0]}", f"{name}: {rng.choice(amounts)}", rng.choice((0, 1, 1)))
    for _ in range(rng.choice((0, 1, 1, 2, 3))):
        how = rng.random()
        if how < 0.55:
            value = rng.choice(_VALUES_OF_YAML) if rng.random() < 0.7 else json.dumps(text(rng))
            made = made.replace(
                rng.choice([each for each in _TOKENS if each in made] or ["version"]), value, rng.choice((1, -1))
            )
        elif how < 0.7:
            recipe = rng.choice(("prune-unstructured(ratio=0.5)", "int8-dynamic", "bf16"))
            made = made.replace(recipe, json.dumps(expression(rng)), rng.choice((1, -1)))
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
