"""Types of arguments that several commands take: each refuses what it cannot read, in words."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    Commands: TypeAlias = argparse._SubParsersAction[argparse.ArgumentParser]
    """What `add_parser` of each command adds to."""


def count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of at least 1")
    return int(text)


def share(text: str) -> float:
    from pytest_modelopt.limits.units import UnitError, parse_percentage

    try:
        value = parse_percentage(text)
    except UnitError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not above 0")
    return value


def seconds(text: str) -> float:
    from pytest_modelopt.limits.units import UnitError, parse_time

    try:
        return parse_time(text)
    except UnitError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def headroom(text: str) -> float:
    from pytest_modelopt.limits.units import UnitError, parse_percentage

    try:
        return parse_percentage(text)
    except UnitError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def reference(text: str) -> str:
    from pytest_modelopt.config.function_references import parse_reference

    try:
        return parse_reference(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def metric(text: str) -> str | dict[str, object]:
    """A name, or a mapping as budgets.yaml has it; what it says is checked where it is written."""
    if not text.lstrip().startswith("{"):
        return text
    import yaml

    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        value = None
    if not isinstance(value, dict):
        raise argparse.ArgumentTypeError(
            f"{text!r} is not a mapping; write for example '{{name: shop.scoring:iou, per_example: true}}'"
        )
    return value
