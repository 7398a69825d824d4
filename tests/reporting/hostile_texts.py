"""Texts of a stranger that try to become structure, links, mentions or commands where they are told."""

from __future__ import annotations

HOSTILE = (
    "a|b",
    "a\\|b",
    "`code`",
    "```\n# heading\n```",
    "</details><script>alert(1)</script>",
    "&lt;b&gt;",
    "[text](http://evil.example)",
    "![x](y)",
    "@someone and @org/team",
    "#12 and GH-12",
    "https://evil.example www.evil.example",
    "line\n\n| a | b |\n|---|---|\n\n- item",
    "\x1b[31mred\x1b[0m\x00\x07",
    "**bold** _it_ __b__ ~~s~~",
    "1. one",
    "12) two",
    "- item",
    "+ item",
    "===",
    "# heading",
    "$x^2$",
    "<!-- -->",
    "\u202ertl\u200b",
)

EVERYTHING = (
    "|\\|` </details></summary><img src=x onerror=alert(1)><script>x</script>[t](javascript:alert(1))![i](//e.example)"
    "<https://e.example> https://e.example www.e.example a@e.example @all @org/team #1 GH-1 o/r#2 ~~s~~ **b** __u__ "
    "$m$ &lt;i&gt; \u202egnp\u2066.exe\u200b\ufeff\x1b]8;;http://e.example\x07x\x9b31m\x00\r\r\n::error::x ##[error]x"
    "\n\n# h\n\n- l\n\n1. n\n\n> q\n\n---\n\n```\ncode\n```\n\n|a|b|\n|-|-|\n|1|2|\n\n<!-- pytest-modelopt -->\n"
    "[r]: http://e.example"
)
