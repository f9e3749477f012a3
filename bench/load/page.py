"""What was found as one HTML file that needs nothing beside it."""

from __future__ import annotations

from html import escape

from bench.load import plots, report
from bench.load.report import Study, Table

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; color: #22262a; background: #fff;
       max-width: 75rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; } h2 { font-size: 1.05rem; margin-top: 2rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .25rem .6rem; border-bottom: 1px solid #dfe3e6; text-align: right;
         white-space: nowrap; }
th:first-child, td:first-child { text-align: left; }
.caution { border-left: 4px solid #d55e00; padding: .3rem .8rem; background: #fdf3ec; }
svg { max-width: 100%; height: auto; }
"""


def page(study: Study) -> str:
    """Return the page."""
    parts = [f"<p class=caution>{escape(caution)}</p>" for caution in report.cautions(study)]
    facts = "".join(f"<li>{escape(sentence)}</li>" for sentence in report.sentences(study))
    parts.append(f"<ul>{facts}</ul>")
    parts += map(_table, report.tables(study))
    if any(run.result.answered for run in study.runs):
        parts.append(f"<h2>Pictures</h2>{plots.svg(study)}")
    title = "Load on " + " and ".join(dict.fromkeys(address for address, _ in study.targets))
    return (
        "<!doctype html><html lang=en><head><meta charset=utf-8>"
        '<meta name=viewport content="width=device-width">'
        f"<title>{escape(title)}</title><style>{_STYLE}</style></head>"
        f"<body><h1>{escape(title)}</h1>{''.join(parts)}</body></html>\n"
    )


def _table(table: Table) -> str:
    heads = "".join(f"<th>{escape(head)}</th>" for head in table.heads)
    rows = "".join(
        f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>" for row in table.rows
    )
    return (
        f"<h2>{escape(table.title)}</h2><div class=wide><table>"
        f"<thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table></div>"
    )
