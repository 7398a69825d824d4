"""Another git revision as the base: its tree, its budgets file, and the variants that are made from them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

from pytest_modelopt.baseline.base_budgets import Found, find_budgets
from pytest_modelopt.baseline.base_setup import set_up
from pytest_modelopt.baseline.base_tree import BaseTree, TreeError, check_out, require_another, with_what_is_there
from pytest_modelopt.baseline.dependencies import changed_dependencies
from pytest_modelopt.baseline.loosened import loosened, removed_cases
from pytest_modelopt.baseline.loosened_markers import loosened_marks
from pytest_modelopt.baseline.model_matching import Pairs, format_pairs, format_unsure, pairs_of
from pytest_modelopt.baseline.untracked import is_ignored, is_tracked, with_heads_untracked
from pytest_modelopt.config.loader import BudgetsFile, ModelEntry, load_budgets
from pytest_modelopt.config.problems import BudgetsError
from pytest_modelopt.limits.baseline_sanity import why_worthless
from pytest_modelopt.measuring.variant import SourceTree, Variant
from pytest_modelopt.optimizing.expression import Expression
from pytest_modelopt.results.base import Against, Base, Loosening
from pytest_modelopt.results.candidate import Candidate
from pytest_modelopt.results.case import MeasuredCase
from pytest_modelopt.results.figures import format_first
from pytest_modelopt.results.source import ProgramSource

_HASH_SHOWN = 12
_GAIN = 0.05
"""A share of a score by which few changes better a model, and a base without its weights falls behind."""
_PATHS_SHOWN = 5
_NAMES = re.compile(r"[\w./\\-]+")
_NO_MODULE = re.compile(r"No module named '([\w.]+)'")
VariantOf = Callable[[BudgetsFile, ModelEntry, Expression | None, Path, Candidate | None], Variant]
WouldRun = Callable[[Variant], tuple[str, ...] | None]
"""Whether a variant can be measured in a tree with links to head: the files of head that it used, or None."""


@dataclass(frozen=True)
class RevisionBase:
    """The base of a run. Plain data, so that it can be told to pytest-xdist's workers."""

    tree: BaseTree
    budgets: BudgetsFile | None
    """The base's own file, or head's where the base's cannot be read; None where the base has none."""
    notes: tuple[str, ...]
    budgets_folder: Path
    """Of head's budgets file."""
    file: Path | None = None
    """The base's budgets file."""
    unknown: str = ""
    """Why it is not known what was loosened since."""
    no_setup: str = ""
    """Why `base_setup` failed: then nothing that runs in the tree is known to be the base."""
    marks: tuple[Loosening, ...] = ()
    """What markers of tests loosened since."""
    pairs: Pairs = field(default_factory=Pairs)
    """What head calls otherwise."""
    _lacking: dict[tuple[str, str], str] = field(default_factory=dict, compare=False)
    """What the base lacks, by model and by its error: asked once for all recipes."""

    @property
    def name(self) -> str:
        return self.tree.commit[:_HASH_SHOWN]

    def variant(self, head: Variant, model: ModelEntry, make: VariantOf) -> Variant | None:
        """What `head`, a variant of `model`, was at the base; None where the base did not have it.

        Factories and files are the base's; the metric and how the call is measured are head's, as both sides need the
        same.
        """
        if self.budgets is None or self.pairs.unsure(model.name, head.label):
            return None
        name, recipe = self.pairs.at_base(model.name, head.label)
        theirs = next((each for each in self.budgets.models if each.name == name), None)
        entry = next((case for case in self.budgets.cases if (case.model, case.recipe) == (theirs, recipe)), None)
        if theirs is None or (entry is None and not head.is_original):
            return None
        candidate = None if entry is None or entry.candidate is None else entry.candidate
        if candidate is not None:
            candidate = replace(candidate, origin=self._at_base(candidate.origin))
        theirs = replace(theirs, origin=self._at_base(theirs.origin))
        expression = None if entry is None else entry.expression
        made = make(self.budgets, theirs, expression, Path(head.working_directory), candidate)
        tree = SourceTree(str(self.tree.repository), str(self.tree.folder), self.tree.commit, bool(self.tree.changed))
        return replace(
            made,
            metric=head.metric,
            generation=head.generation,
            call=head.call,
            slices=head.slices,
            batch_of=head.batch_of,
            batch_size=head.batch_size,
            device=head.device,
            threads=head.threads,
            example_inputs=head.example_inputs,
            takes=head.takes,
            time_limit_s=head.time_limit_s,
            workload=head.workload,
            points=head.points,
            import_paths=tuple(str(self.tree.mapped(Path(path))) for path in made.import_paths),
            working_directory=str(self._directory(Path(head.working_directory))),
            environment=head.environment,
            tree=tree,
        )

    def _at_base(self, origin: Any) -> Any:
        """A file as it is at the base; what is made by a factory of the base's is found by its name there."""
        if not isinstance(origin, ProgramSource) or self.budgets is None:
            return origin
        return replace(origin, file=str(self.tree.mapped(self.budgets.path.parent / origin.file)))

    @property
    def never_ran(self) -> Base | None:
        """Of all variants, where the base's tree is not known to be what it should be."""
        return Base(self.name, "unusable", self.no_setup) if self.no_setup else None

    def lacks(self, model: str, recipe: str) -> Base:
        """Of a variant that is not at the base, or of which nobody knows what it was there."""
        what, unsure = f"{model}/{recipe}", self.pairs.unsure(model, recipe)
        if unsure:  # of a model in the same words for each recipe, so that it is said once
            whose = model if model in self.pairs.unsure_models else what
            return Base(self.name, "unpaired", format_unsure(whose, unsure, self.name))
        if self.budgets is None:
            return Base(self.name, "new", f"{what} is new: there is no budgets file at {self.name}")
        return Base(self.name, "new", f"{what} is new: the budgets file at {self.name} does not have it")

    def explained(self, case: MeasuredCase, base: Variant, would_run: WouldRun) -> MeasuredCase:
        """The case with what the tree has to do with it, where the base could not be measured.

        A base whose own code fails stays so. One that lacks what no revision has is healthy, and its check is not.
        """
        if case.base is None or case.base.status == "new":
            return case
        if case.base.status == "compared":
            return self._unusable_without_weights(case, base, would_run)
        missing = [
            (self.tree.pointers, "Git LFS pointers instead of their content", f"git lfs fetch origin {self.name}"),
            (self.tree.missing_submodules, "submodules without their content", "git submodule update --init"),
        ]
        lacking = [
            f"the tree of {self.name} has {what} ({_few(paths)}): run `{command}` first"
            for paths, what, command in missing
            if paths
        ]
        if not lacking and case.base.status == "failed":
            known = (case.model, case.base.why)
            if known not in self._lacking:
                self._lacking[known] = self._lacks_untracked(case.base.why, base, would_run)
            lacking = [self._lacking[known]] if self._lacking[known] else []
        if not lacking:
            return case
        return replace(case, base=replace(case.base, status="unusable", why="; ".join([case.base.why, *lacking])))

    def _unusable_without_weights(self, case: MeasuredCase, base: Variant, would_run: WouldRun) -> MeasuredCase:
        """A base that is far worse than head may be one whose weights git does not track, where its factory makes
        others instead: then nothing is known of what was lost since."""
        sides = [side.score for side in (case.reference, case.variant) if side is not None and side.score is not None]
        if case.base is None or case.drop is None or len(sides) < 2:
            return case
        if -case.drop <= _GAIN * max(map(abs, sides)) and why_worthless(case) is None:
            return case
        why = f"{self.name} scores {sides[0]:.4g}, and head {sides[1]:.4g}"
        known = (case.model, why)
        if known not in self._lacking:
            with with_heads_untracked(self.tree) as folder:
                used = None if folder is None else would_run(_in_folder(base, folder))
            self._lacking[known] = _format_untracked(used, self.name) if used else ""
        if not self._lacking[known]:
            return case
        told = f"{why}; {self._lacking[known]}"
        return replace(case, reference=None, base=replace(case.base, status="unusable", why=told))

    def against(self, head: BudgetsFile | None, cases: Sequence[MeasuredCase]) -> Against:
        """What the record says of the base. `cases`: what was measured, which knows the direction of each metric."""
        higher_is_better = {case.model: case.higher_is_better for case in cases if case.metric is not None}
        limits: tuple[Loosening, ...] = ()
        gone: tuple[str, ...] = ()
        if self.budgets is not None and head is not None:
            theirs = self.pairs.as_head_calls(self.budgets, head)
            limits, gone = loosened(theirs, head, higher_is_better), removed_cases(theirs, head)
        return Against(
            kind="revision",
            asked=self.tree.asked,
            base=self.tree.commit,
            head=self.tree.head,
            has_uncommitted=self.tree.has_uncommitted,
            loosened=(*limits, *self.marks),
            removed=gone,
            unknown=self.unknown,
            notes=self.notes,
        )

    def _lacks_untracked(self, why: str, base: Variant, would_run: WouldRun) -> str:
        """What the base lacks since git does not track it, with the ways out; empty where its own code fails.

        What its error names is one sign. Where it names nothing, the base is tried in a copy of its tree that has what
        head has and git does not track.
        """
        named = self._named(why)
        if named is not None and is_tracked(self.tree, named):
            return ""  # this change adds it, and so mends the base
        if named is not None:
            return _format_untracked((str(named.relative_to(self.tree.repository)),), self.name)
        with with_heads_untracked(self.tree) as folder:
            used = None if folder is None else would_run(_in_folder(base, folder))
        return "" if used is None else _format_untracked(used, self.name)

    def _named(self, text: str) -> Path | None:
        """A file that an error names and the base's tree has not, as a path of head: head has it, or git ignores it."""
        folders = (self.budgets_folder, self.tree.repository, self.tree.repository / "src")
        modules: list[str] = [module.replace(".", "/") for module in _NO_MODULE.findall(text)]
        names: list[str] = [name.removeprefix(f"{self.tree.folder}/") for name in _NAMES.findall(text)]
        paths = [
            (folder, folder / name)
            for name in (*(f"{module}{end}" for module in modules for end in (".py", *EXTENSION_SUFFIXES)), *names)
            for folder in folders
        ]
        lost = [path for folder, path in paths if path.is_relative_to(folder) and not self.tree.mapped(path).exists()]
        at_head = next((path for path in lost if path.is_file()), None)
        if at_head is not None:
            return at_head
        ignored = (path for path in lost if path.suffix and is_ignored(self.tree, self.tree.mapped(path)))
        return next(ignored, None)

    def to_data(self) -> dict[str, Any]:
        """For `from_data` in another process."""
        data = asdict(self.tree) | {"no_setup": self.no_setup, "file": self.file}
        return {key: str(value) if isinstance(value, Path) else value for key, value in data.items()}

    def _directory(self, head: Path) -> Path:
        """The working directory of the base's workers: that of head's, or the top where the base lacks the folder."""
        mapped = self.tree.mapped(head)
        return mapped if mapped.is_dir() else self.tree.folder


def open_base(
    revision: str,
    budgets: Path,
    head: BudgetsFile | None,
    recipes: Mapping[str, Path] | None = None,
    step_limit_s: float | None = None,
    root: Path | None = None,
    is_configured: bool = True,
) -> RevisionBase:
    """Check out `revision` of the repository that `budgets` lies in, and set it up. The caller removes the tree.

    `recipes`: by name, the files of recipes that are not imported by name, and so are head's on both sides.
    `step_limit_s`: of `base_setup`; None: what the budgets file says. `root`: head's root
    folder; `is_configured`: whether its configuration says where budgets.yaml lies, and not the command line.

    Raises:
        TreeError: it cannot be checked out, or it is head itself.
    """
    if not budgets.is_file():
        raise TreeError(f"there is no budgets file {budgets}, so there is nothing that could be compared")
    tree = check_out(revision, budgets.parent)
    try:
        require_another(tree)
        found = find_budgets(tree, budgets, root if is_configured else None)
        base = with_budgets(tree, budgets, head, found)
        marks = loosened_marks(tree.changed, tree.folder, tree.repository, root or tree.repository)
        base = replace(
            base, marks=marks, notes=(*_dependencies(tree), *_carried_recipes(tree, recipes or {}), *base.notes)
        )
        if head is None or not head.base_setup:
            return base
        limit_s = step_limit_s or head.defaults.step_limit_s
        no_setup = set_up(tree, head.base_setup, budgets.parent, limit_s)
        return replace(base, tree=with_what_is_there(tree), no_setup=no_setup)
    except BaseException:
        tree.remove()
        raise


def from_data(data: dict[str, Any], budgets: Path, head: BudgetsFile | None) -> RevisionBase:
    """The base that another process has checked out, and will remove."""
    plain: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in data.items()}
    for name in ("repository", "folder"):
        plain[name] = Path(plain[name])
    no_setup, file = plain.pop("no_setup"), plain.pop("file")
    found = Found(None if file is None else Path(file))
    return replace(with_budgets(BaseTree(**plain), budgets, head, found), no_setup=no_setup)


def with_budgets(tree: BaseTree, budgets: Path, head: BudgetsFile | None, found: Found) -> RevisionBase:
    """The base in `tree`, whose budgets file was found. `budgets`: head's."""
    notes, unknown = [found.note] if found.note else [], found.unknown
    if found.file is None:
        return RevisionBase(tree, None, tuple([*notes, unknown] if unknown else notes), budgets.parent, None, unknown)
    try:
        theirs: BudgetsFile | None = load_budgets(found.file, relative_to=tree.folder, expired="keep")
    except BudgetsError as error:
        unknown = f"the budgets file at {tree.commit[:_HASH_SHOWN]} cannot be read ({error.problems[0]})"
        notes.append(f"{unknown}, so its models are made as head's file says, and what was loosened is unknown")
        theirs = None if head is None else replace(head, path=found.file)
    pairs = Pairs() if theirs is None or head is None else pairs_of(theirs, head)
    notes += format_pairs(pairs, tree.commit[:_HASH_SHOWN])
    return RevisionBase(tree, theirs, tuple(notes), budgets.parent, found.file, unknown, pairs=pairs)


def _dependencies(tree: BaseTree) -> list[str]:
    """Both sides run in one environment, so what changed dependencies do is in none of the figures."""
    names = changed_dependencies(tree.changed, tree.folder, tree.repository)
    if not names:
        return []
    return [
        f"dependencies have changed ({_few(names)}): head and base were both measured in this environment; "
        "compare with a saved record (--modelopt-baseline) to see what they do to the exact figures"
    ]


def _carried_recipes(tree: BaseTree, recipes: Mapping[str, Path]) -> list[str]:
    """Recipes of a conftest.py travel as code to the workers of both sides, so a change of them is in no figure."""
    changed = {tree.mapped(tree.repository / path) for path in tree.changed}
    names = [name for name, file in recipes.items() if tree.mapped(file) in changed]
    if not names:
        return []
    return [
        f"conftest.py has changed, and its recipes ({_few(tuple(sorted(names)))}) are head's on both sides: what "
        "changed in them is not compared; those of an importable module are each side's own"
    ]


def _in_folder(base: Variant, folder: Path) -> Variant:
    """The variant in a copy of its tree."""
    assert base.tree is not None
    was = base.tree.folder

    def moved(path: str) -> str:
        inside = Path(path).is_relative_to(was)
        return str(folder / Path(path).relative_to(was)) if inside else path

    return replace(
        base,
        import_paths=tuple(map(moved, base.import_paths)),
        working_directory=moved(base.working_directory),
        tree=replace(base.tree, folder=str(folder)),
    )


def _format_untracked(files: tuple[str, ...], base: str) -> str:
    what = f"{_few(files)} {'is' if len(files) == 1 else 'are'}" if files else "files that it needs are"
    ways = [
        "give it a `base_setup:` in budgets.yaml, a command that makes or fetches them in its tree (`base_setup: "
        "[python, tools/fetch_weights.py]`)",
        "name the file by an absolute path, or by an environment variable that names the file itself",
    ]
    if any(file.endswith((".py", *EXTENSION_SUFFIXES)) for file in files):
        ways[1] = "commit it, or let the code do without it"
    return (
        f"{what} not in the tree of {base}, since git does not track such files and no revision has them, so the base "
        f"could not be checked, whether it works or not; {', or '.join(ways)}"
    )


def _few(paths: tuple[str, ...]) -> str:
    return format_first(paths, _PATHS_SHOWN)
