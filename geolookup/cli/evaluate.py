"""``geolookup evaluate``: how often sources are right, alone and together."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from geolookup.cli.options import json_option, read_part
from geolookup.cli.output import Progress, printable, table
from geolookup.cli.picture import picture_format, written_picture

if TYPE_CHECKING:
    from fractions import Fraction

    from geolookup.answer.claims import Policy
    from geolookup.review.evaluation import (
        Evaluation,
        Interval,
        Outcome,
        Recipe,
        Score,
        Statements,
        StatusScore,
    )

_LISTED = 5
"""Codes that the table names of those that are falsely INSIDE; --json has all."""


@click.command(name="evaluate", short_help="Score sources against known places.")
@click.argument("file", required=False, metavar="[FILE]")
@click.option(
    "--truth",
    "truth_files",
    type=click.Path(exists=True, path_type=Path),
    metavar="FILE",
    multiple=True,
    required=True,
    help="Known places: a geofeed, or CSV with columns for prefix, country and operator."
    " May be given again.",
)
@click.option(
    "--older",
    type=click.Path(exists=True, dir_okay=False),
    metavar="FILE",
    help="A dataset or manifest with older editions of sources of the same names.",
)
@click.option(
    "--wrong-at-most",
    callback=read_part,
    metavar="SHARE",
    help="Name the recipe that decides most and is wrong for at most this share, such as 0.5%.",
)
@click.option(
    "--plot",
    type=click.Path(dir_okay=False, writable=True, path_type=Path),
    metavar="OUT",
    help="Draw what is wrong and what is right for each recipe, .png or .svg.",
)
@json_option
def evaluate_sources(
    *,
    file: str | None,
    truth_files: tuple[Path, ...],
    older: str | None,
    wrong_at_most: Fraction | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Score the sources of FILE against known places: each alone, and each combination.

    FILE is a dataset with evidence, by default the embedded one, or a manifest (.toml),
    whose sources are read. A prefix is asked about as a region set of one country would be:
    INSIDE the country it is in is right, OUTSIDE is wrong, the rest is undetermined. An
    operator's own publication among the sources is left out where its places are scored.

    Shares are of prefixes; in brackets, where 95 % of the shares lie when the operators are
    drawn anew at random; then of addresses. With --json: truth, scores (by recipe, policy
    and family), statuses, left_out, choice.

    \b
    Examples:
      geolookup evaluate --truth feeds/
      geolookup evaluate geolookup.toml --truth known.csv --wrong-at-most 0.5% --plot sources.svg
    """
    image_format = None
    if plot is not None:
        image_format = picture_format(plot, "--plot", [file, older, *truth_files])
    from geolookup.review import evaluation  # noqa: PLC0415
    from geolookup.review.truth import read_truth  # noqa: PLC0415

    truth = read_truth(truth_files)
    for finding in truth.findings:
        click.echo(f"geolookup: {finding}", err=True)
    operators = {group.name for group in truth.groups}
    with Progress("scoring") as progress:
        sources = _statements(file, operators)
        try:
            found = evaluation.evaluate(
                truth.groups,
                sources,
                older=() if older is None else _older(older, operators, sources),
                progress=progress.update,
            )
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    bound = None if wrong_at_most is None else float(wrong_at_most)
    choice = None if bound is None else evaluation.choose(found.scores, bound)
    if plot is not None and image_format is not None:
        with written_picture(plot) as written:
            from geolookup.pictures import accuracy  # noqa: PLC0415

            accuracy.draw(found.scores, written, image_format)
    if as_json:
        record = {
            "truth": {"operators": len(operators), "prefixes": truth.prefixes},
            **_record(found),
        }
        if bound is not None:
            record["choice"] = None if choice is None else _choice_record(choice)
        click.echo(json.dumps(record))
        return
    click.echo(f"{truth.prefixes:,} prefixes of {len(operators):,} operators\n")
    click.echo("\n\n".join(_tables(found)))
    if bound is not None:
        click.echo(f"\n{_choice_text(choice, bound)}")


def _statements(file: str | None, operators: Collection[str]) -> tuple[Statements, ...]:
    from geolookup.answer.dataset import open as open_dataset  # noqa: PLC0415
    from geolookup.review import statements  # noqa: PLC0415

    if file is not None and file.endswith(".toml"):
        from geolookup.build.manifest import load  # noqa: PLC0415

        return statements.of_manifest(load(file), operators)
    with open_dataset(file) as dataset:
        return statements.of_dataset(dataset, operators)


def _older(
    file: str, operators: Collection[str], sources: Sequence[Statements]
) -> tuple[Statements, ...]:
    """Return those of the older sources that have another date than the newer ones."""
    dates = {source.name: source.date for source in sources}
    return tuple(
        one for one in _statements(file, operators) if one.date != dates.get(one.name, one.date)
    )


def _tables(found: Evaluation) -> Iterable[str]:
    for family in (4, 6):
        scores = [score for score in found.scores if score.family == family]
        if scores:
            yield _scores_table(family, scores)
            yield _statuses_table(family, [one for one in found.statuses if one.family == family])
    if found.left_out:
        listed = ", ".join(f"{group} ({', '.join(own)})" for group, own in found.left_out.items())
        yield f"Scored without the operator's own publication: {printable(listed)}"


def _scores_table(family: int, scores: Sequence[Score]) -> str:
    head = f"IPv{family} RECIPE|POLICY|WRONG||RIGHT||UNDETERMINED|WRONG (ADDR.)|RIGHT (ADDR.)"
    rows = [[*head.split("|"), "FALSELY INSIDE"]]
    for score in scores:
        codes = sorted(score.falsely_inside.items(), key=lambda pair: -pair[1].prefixes)
        rows.append(
            [
                printable(score.recipe.label),
                score.policy.name,
                _percent(score.share("wrong")),
                _bracket(score.interval("wrong")),
                _percent(score.share("right")),
                _bracket(score.interval("right")),
                _percent(score.share("undetermined")),
                _percent(score.share("wrong", by_addresses=True)),
                _percent(score.share("right", by_addresses=True)),
                " ".join(f"{code} {amount.prefixes:,.0f}" for code, amount in codes[:_LISTED]),
            ]
        )
    return table(rows, right=range(2, 9))


def _statuses_table(family: int, statuses: Sequence[StatusScore]) -> str:
    rows = [[f"IPv{family} RECIPE", "STATUS", "PREFIXES", "COUNTRY RIGHT"]]
    rows += [
        [
            printable(one.recipe.label),
            one.status.name,
            f"{one.amount.prefixes:,.0f}",
            _percent(one.right.prefixes / one.amount.prefixes),
        ]
        for one in statuses
    ]
    return table(rows, right=(2, 3))


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


def _bracket(interval: Interval | None) -> str:
    return "" if interval is None else f"[{100 * interval.low:.2f}, {100 * interval.high:.2f}]"


def _choice_text(choice: tuple[Recipe, Policy] | None, bound: float) -> str:
    if choice is None:
        return f"No recipe is wrong for at most {_percent(bound)}."
    recipe, policy = choice
    return (
        f"Wrong for at most {_percent(bound)} in each family, and decides most:"
        f" {printable(recipe.label)}, {policy.name}"
    )


def _choice_record(choice: tuple[Recipe, Policy]) -> dict[str, object]:
    recipe, policy = choice
    return {"sources": list(recipe.sources), "policy": policy.name}


def _record(found: Evaluation) -> dict[str, Any]:
    return {
        "scores": [_score_record(score) for score in found.scores],
        "statuses": [
            {
                **_recipe_record(one.recipe),
                "family": one.family,
                "status": one.status.name,
                "amount": one.amount._asdict(),
                "country_right": one.right._asdict(),
            }
            for one in found.statuses
        ],
        "left_out": {group: list(own) for group, own in found.left_out.items()},
    }


def _score_record(score: Score) -> dict[str, Any]:
    return {
        **_recipe_record(score.recipe),
        "policy": score.policy.name,
        "family": score.family,
        "prefixes": _shares(score, by_addresses=False),
        "addresses": _shares(score, by_addresses=True),
        "falsely_inside": {code: part._asdict() for code, part in score.falsely_inside.items()},
        "operators": {
            name: {outcome: part._asdict() for outcome, part in parts.items()}
            for name, parts in score.groups.items()
        },
    }


def _shares(score: Score, *, by_addresses: bool) -> dict[str, Any]:
    from geolookup.review.evaluation import OUTCOMES  # noqa: PLC0415

    def one(outcome: Outcome) -> dict[str, Any]:
        interval = score.interval(outcome, by_addresses=by_addresses)
        ends = None if interval is None else [interval.low, interval.high]
        return {"share": score.share(outcome, by_addresses=by_addresses), "interval": ends}

    return {
        "known": score.known[int(by_addresses)],
        **{outcome: one(outcome) for outcome in OUTCOMES},
    }


def _recipe_record(recipe: Recipe) -> dict[str, Any]:
    record: dict[str, Any] = {"sources": list(recipe.sources)}
    return {**record, "older": recipe.older} if recipe.older else record
