"""`pytest-modelopt explore`: try recipes on a model, and choose the one that keeps its limits and serves the aim."""

from __future__ import annotations

import argparse
import contextlib
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from pytest_modelopt.cli.exploration.explore_request import (
    limits_of,
    model_of,
    space_of,
    training_of,
    tunes,
    with_knobs,
)
from pytest_modelopt.cli.shared.arguments import count, reference, seconds
from pytest_modelopt.cli.shared.exit_codes import INTERRUPTED, PASSED, RED
from pytest_modelopt.cli.shared.model_options import REFERENCE, add_model_options
from pytest_modelopt.cli.shared.printing import tell
from pytest_modelopt.limits.catalogue import BUDGET_LIMITS

if TYPE_CHECKING:
    from pytest_modelopt.cli.exploration.explore_gauge import GateGauge
    from pytest_modelopt.cli.shared.arguments import Commands
    from pytest_modelopt.config.loader import BudgetsFile, ModelEntry
    from pytest_modelopt.exploring.answer_text import Answer
    from pytest_modelopt.exploring.cache import Cache
    from pytest_modelopt.exploring.choice import Trial
    from pytest_modelopt.exploring.funnel import Part, Search, Tuner
    from pytest_modelopt.results.measurement import LayerCoverage, Measurement
    from pytest_modelopt.results.verdicts import Limit

_DESCRIPTION = """\
Tries recipes on a model of the budgets file, or on the one that PACKAGE.MODULE:FUNCTION returns, and chooses one: of
those that keep all limits the best by --aim. Limits are those of the model's `budget:`, and those that options state.

First it tells what the model is made of and which recipes can pay. Then each recipe is measured, the cheapest evidence
first, on one half of the examples; one that breaks a limit is not measured further, and only those that may win are
timed. Then further settings of what nothing dominates are tried, by Optuna. The best are measured anew on the other
half, in fresh processes, as the gate does it: only these figures count.

Ctrl-C or the end of --time leaves the best answer so far. What was measured is kept in the user's cache folder, so that
a second call goes on; --fresh forgets it. --write puts the recipe with its limits into the budgets file.
"""


def add_parser(commands: Commands) -> None:
    parser = commands.add_parser(
        "explore",
        help="try recipes on a model, and choose the one that keeps its limits and serves the aim",
        description=_DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model", metavar="MODEL", help="a model of the budgets file, or PACKAGE.MODULE:FUNCTION that returns one"
    )
    parser.add_argument(
        "--aim", choices=("memory", "speedup", "size"), default="memory", help="what to gain most of (memory)"
    )
    parser.add_argument(
        "--time", type=seconds, default=600.0, metavar="TIME", help="the longest that all of it may take (10 min)"
    )
    parser.add_argument("--write", action="store_true", help="put the recipe with its limits into the budgets file")
    parser.add_argument(
        "--sensitivity", action="store_true", help="print what --recipe (int8-dynamic) costs on each layer, and no more"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="with --sensitivity: write it as one HTML page, too")
    parser.add_argument(
        "--tune",
        action=argparse.BooleanOptionalAction,
        help="try further settings of what nothing dominates (default: unless --recipe says what is tried)",
    )
    parser.add_argument(
        "--finetune",
        type=reference,
        metavar=REFERENCE,
        help="the function (model, batches) -> None that trains what is near its limits on answers, tried last "
        "(default: the one that `finetune=` of the model's recipes names)",
    )
    parser.add_argument("--export", type=Path, metavar="FOLDER", help="write the files of the chosen variant there")
    parser.add_argument("--fresh", action="store_true", help="forget what earlier calls have measured of the model")
    parser.add_argument(
        "--seed", type=count, default=1, metavar="N", help="decides which examples choose, and which confirm (1)"
    )
    parser.add_argument(
        "--time-limit", type=seconds, metavar="TIME", help="the longest that timing a finalist may take (20 s)"
    )
    parser.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="measure recipes side by side on the machines of a Ray cluster, all but their times",
    )
    parser.add_argument(
        "--slurm", type=Path, metavar="DIR", help="the same on a Slurm cluster, whose machines share this folder"
    )
    parser.add_argument(
        "--budgets", type=Path, metavar="FILE", help="the budgets file (default: the one that pytest would take)"
    )
    parser.add_argument(
        "--record",
        type=Path,
        default=Path("modelopt-report/explore.json"),
        metavar="FILE",
        help="the file of the finalists, as a record (modelopt-report/explore.json)",
    )
    add_model_options(parser)
    limits = parser.add_argument_group("limits, as in a budgets file")
    for name, kind in BUDGET_LIMITS.items():
        told = kind.meaning.replace("%", "%%")
        limits.add_argument(f"--{name.replace('_', '-')}", metavar=kind.unit.upper(), help=told)
    parser.set_defaults(run=run, in_project=True)


def run(options: argparse.Namespace) -> int:
    from pytest_modelopt.exploring.cache import Cache, folder_of

    start = time.monotonic()
    path: Path = options.budgets or options.default_budgets
    budgets, model = model_of(options, path)
    limits = limits_of(options, model)
    cache = Cache(folder_of(options.root, model.name), model.name)
    try:
        cache.open()
    except OSError as error:
        tell(f"{error.filename}: {error.strerror}: nothing that is measured is kept for another call")
    try:
        if options.fresh:
            cache.forget()
        return _explore(options, budgets, model, limits, cache, start)
    finally:
        cache.close()


def _explore(
    options: argparse.Namespace,
    budgets: BudgetsFile,
    model: ModelEntry,
    limits: tuple[Limit, ...],
    cache: Cache,
    start: float,
) -> int:
    from pytest_modelopt.cli.exploration.explore_fleet import cluster_of
    from pytest_modelopt.cli.exploration.explore_gauge import GateGauge, Watch
    from pytest_modelopt.cli.exploration.explore_report import export_choice, keep_record, plot
    from pytest_modelopt.cli.exploration.explore_sensitivity import tell_sensitivity
    from pytest_modelopt.cli.shared.progress_line import show
    from pytest_modelopt.exploring import answer_text

    gauge = GateGauge.asked(options, budgets, model, limits, Watch(start + options.time))
    try:
        if options.html is not None and not options.sensitivity:
            raise ValueError(
                "--html belongs to --sensitivity; `report RECORD --html FILE` makes a page of the finalists"
            )
        if (cluster := cluster_of(options)) is not None and options.sensitivity:
            option = f"--{cluster.engine}"
            raise ValueError(
                f"{option} tries recipes side by side, and --sensitivity tries none: take one of them away"
            )
        if options.sensitivity:
            original, _ = _looked(options, gauge)
            _use(cache, gauge, original)
            return tell_sensitivity(options, gauge, cache)
        answer = _searched(options, gauge, cache, start)
        show("")
        for line in answer_text.lines(answer, gauge.session.environment):
            tell(line)
        plot(options.record, answer, model.name)
        if answer.confirmed:
            keep_record(options.record, gauge)
        if options.export is not None:
            gauge.watch.until = math.inf
            export_choice(options.export, options.record, answer, gauge)
    finally:
        gauge.close()
        show("")
    if options.write:
        _write(options, budgets, answer, gauge)
    if "interrupt" in (answer.search.end, answer.end):
        return INTERRUPTED
    return PASSED if answer.winner is not None or not limits else RED


def _searched(options: argparse.Namespace, gauge: GateGauge, cache: Cache, start: float) -> Answer:
    from pytest_modelopt.cli.exploration.explore_fleet import fleet_of
    from pytest_modelopt.exploring import makeup_text, tuning
    from pytest_modelopt.exploring.answer_text import Answer
    from pytest_modelopt.exploring.confirming import confirm, finalists
    from pytest_modelopt.exploring.funnel import Search, needs_times
    from pytest_modelopt.exploring.mixing import Mixing
    from pytest_modelopt.exploring.space import worth_trying
    from pytest_modelopt.exploring.training import Training

    training = training_of(options, gauge.budgets, gauge.model)
    original, layers = _looked(options, gauge)
    took = time.monotonic() - start
    seen = original.observations
    derived = (seen.derived_layers if seen else None) or {}
    space = with_knobs(options, worth_trying(space_of(options, gauge.model), layers, derived))
    for line in makeup_text.lines(gauge.model.name, original, layers, space, derived):
        tell(line)
    if len(gauge.model.workloads) > 1:
        tell(
            f"explored at its first workload, {gauge.model.workloads[0].name}; what is chosen may not be best at others"
        )
    _use(cache, gauge, original)
    is_tuned = tunes(options) and tuning.is_installed()
    ends = _ends(
        options.time,
        gauge.time_limit_s if needs_times(options.aim, gauge.limits) else 0.0,
        took,
        tunes=is_tuned,
        trains=bool(training),
    )
    fleet = fleet_of(options, gauge, cache, space.recipes)

    def begin(stage: Part) -> None:
        gauge.watch.until = start + ends[stage]
        if stage != "measuring":
            fleet.close()

    linear = sum(each.weight_bytes for each in layers if "Linear" in (each.type, derived.get(each.type)))

    def tuner(trials: Sequence[Trial]) -> Tuner | None:
        return tuning.tuner_of(trials, linear, options.seed) if is_tuned else None

    mixing = Mixing(gauge, cache)
    search = Search(space.recipes, gauge.limits, options.aim, gauge, cache, gauge.watch.tell, begin, tuner, mix=mixing)
    search.elsewhere = fleet
    if training:
        search.train = Training(training)
    with contextlib.closing(fleet):
        search.run()
    gauge.sensitivity = mixing.known(search)
    _require_one_candidate(search, options.time, took)
    gauge.watch.until = start + options.time
    chosen = finalists(search) if search.end != "interrupt" else []
    confirmed, end = confirm(
        chosen, lambda trial, left: gauge.confirm(trial, chosen, left), all_of_them=not gauge.limits
    )
    after = [each.case.variant.examples for each in confirmed if each.case.variant is not None]
    examples = (original.examples, max(after, default=0))
    return Answer(search, len(chosen), tuple(confirmed), end, gauge.part is not None, examples)


def _use(cache: Cache, gauge: GateGauge, original: Measurement) -> None:
    """Take what was measured of this model before, and say what of others is there."""
    assert gauge.session.environment is not None
    cache.use(gauge.key(original), gauge.session.environment)
    if cache.of_others:
        tell(
            f"{cache.of_others} earlier measurements are of another model, other data, another call or --seed, other "
            "versions or another machine, and are not used"
        )


def _looked(options: argparse.Namespace, gauge: GateGauge) -> tuple[Measurement, tuple[LayerCoverage, ...]]:
    """The original and its layers, within the time."""
    from pytest_modelopt.exploring.funnel import TimeIsUp
    from pytest_modelopt.results.figures import format_time

    try:
        return gauge.look()
    except TimeIsUp:
        raise ValueError(
            f"{format_time(options.time)} of --time were over before the original was measured, which is the first "
            "step: give more --time"
        ) from None


def _require_one_candidate(search: Search, whole_s: float, original_s: float) -> None:
    """Raises ValueError where the time was over before one candidate was measured, and KeyboardInterrupt after
    Ctrl-C."""
    from pytest_modelopt.results.figures import format_time

    if not search.trials or any(trial.case is not None for trial in search.trials):
        return
    if search.end == "interrupt":
        raise KeyboardInterrupt
    raise ValueError(
        f"--time {format_time(whole_s)} is too short for one candidate, of which none was measured: the original took "
        f"{format_time(original_s)}, and a candidate takes about as long; give --time "
        f"{format_time(5 * original_s + 10)} or more"
    )


def _ends(whole_s: float, time_limit_s: float, original_s: float, *, tunes: bool, trains: bool) -> dict[Part, float]:
    """When each part ends, in seconds from the start: time is left for settings, for training, for times (with a limit
    of 0 none are taken), and to measure the finalists anew."""
    from pytest_modelopt.cli.exploration.explore_gauge import LEAST_S
    from pytest_modelopt.exploring.funnel import FINALISTS

    anew_s = min(0.4 * whole_s, original_s + FINALISTS * (original_s / 2 + max(LEAST_S, time_limit_s / 4)))
    search_s = whole_s - anew_s
    untimed = 0.85 if time_limit_s else 1.0
    measuring, tuning = (0.7 * untimed, untimed) if tunes else (untimed, untimed)
    if trains:
        measuring, tuning = 0.6 * measuring, 0.6 * tuning
    shares: dict[Part, float] = {"measuring": measuring, "tuning": tuning, "training": untimed, "timing": 1.0}
    return {part: share * search_s for part, share in shares.items()}


def _write(options: argparse.Namespace, budgets: BudgetsFile, answer: Answer, gauge: GateGauge) -> None:
    from pytest_modelopt.cli.exploration.explore_writing import write_choice

    won = answer.winner
    if won is None:
        tell("--write: nothing is written, since nothing was chosen and confirmed")
        return
    tell(write_choice(options, budgets, gauge.model, won, gauge.session.record(complete=True)))
