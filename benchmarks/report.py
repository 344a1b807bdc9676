"""Turns what the files here have measured into one page of Markdown, and plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from frame import cells, heads, number  # beside this file, like the others
from ours import OURS
from plot import line_plot
from targets import Whole, judged


def escaped(text: str) -> str:
    """Return text that a cell of a table can hold."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def markdown_table(head: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> list[str]:
    """Return a table as lines of Markdown.

    Args:
        head: of its columns.
        rows: may be shorter than the head.
        left: the column that is text; the others are numbers.
    """
    rule = ["---" if column == left else "---:" for column in range(len(head))]
    lines = []
    for line in (head, rule, *rows):
        filled = [*line, *[""] * (len(head) - len(line))]
        lines.append(f"| {' | '.join(escaped(cell) for cell in filled)} |")
    return lines


def plot_name(file: str, key: str) -> str:
    """Return the name of a plot's file, without the suffix."""
    return key if key.startswith(file) else f"{file}-{key}"


def plots_of(file: str, results: Mapping[str, Any]) -> dict[str, str]:
    """Return the plots of one file's results, by the name of their files, without the suffix."""
    plots = {}
    for key, series in results.get("series", {}).items():
        # Ours first, at the top of the legend.
        lines = dict(sorted(series["lines"].items(), key=lambda line: not line[0].startswith(OURS)))
        try:
            plots[plot_name(file, key)] = line_plot(
                series["title"], series["x"], series["y"], lines
            )
        except ValueError:  # nothing was measured, as the tables say
            continue
    return plots


def section(file: str, results: Mapping[str, Any]) -> list[str]:
    """Return what one file has measured."""
    lines = [f"## {results.get('question', file)}", "", f"`benchmarks/{file}.py`", ""]
    if "failed" in results:
        return [*lines, f"It failed: {escaped(results['failed'])}", ""]
    for table in results["tables"].values():
        rows = [cells(table, row) for row in table["rows"]]
        lines += [*markdown_table(heads(table), rows), ""]
    if facts := results["facts"]:
        told = [(n, v if isinstance(v, str) else number(v, 2)) for n, v in facts.items()]
        lines += [*markdown_table(("besides", ""), told, left=0), ""]
    for remark in results["remarks"]:
        lines += [remark, ""]
    titles = {plot_name(file, key): line["title"] for key, line in results["series"].items()}
    for name in plots_of(file, results):
        lines += [f"![{titles[name]}]({name}.svg)", ""]
    return lines


def page(whole: Whole, machine: Mapping[str, str], *, quick: bool) -> str:
    """Return everything as one page of Markdown.

    Args:
        whole: the results of each file.
        machine: what they hold for.
        quick: they come from a short run.
    """
    lines = ["# What was measured", ""]
    if quick:
        lines += ["**A short run, to see that it runs: its figures mean little.**", ""]
    lines += [
        "Written by `make bench`. All ways of a table did the same work in turns within one run; a",
        "ratio is the median of the turns' ratios, and holds elsewhere more than a figure does.",
        "Ours had every layer of confinement of the machine on, deadlines, budgets and usage",
        "counted; nobody else confines anything, but Extism and bubblewrap.",
        "",
        *markdown_table(("what", "here"), list(machine.items()), left=0),
        "",
        "## Where we want to be",
        "",
        *markdown_table(("what", "wanted", "reached", "so?"), judged(whole), left=0),
        "",
    ]
    for file, results in whole.items():
        lines += section(file, results)
    return "\n".join(lines).rstrip() + "\n"
