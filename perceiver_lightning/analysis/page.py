"""One HTML page that compares runs, complete in itself: it opens in any browser and fetches nothing."""

from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path

from perceiver_lightning.analysis.plots import color, svg
from perceiver_lightning.analysis.runs import NOTHING, Run, as_text, differences, results
from perceiver_lightning.errors import InputError

# The policy makes the browser refuse whatever lies outside the page.
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy"
  content="default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'">
<title>{title}</title>
<style>
body {{ font: 15px/1.45 system-ui, sans-serif; color: #222; background: #fff; margin: 2rem auto; max-width: 84rem;
  padding: 0 1.5rem }}
h1 {{ font-size: 1.5rem; margin: 0 }}
h2 {{ font-size: 1.1rem; margin: 2rem 0 .5rem }}
p {{ margin: .3rem 0; color: #666 }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums }}
th, td {{ padding: .3rem .7rem; border-bottom: 1px solid #e3e3e3; text-align: right; vertical-align: top;
  white-space: nowrap }}
th:first-child, td:first-child {{ text-align: left }}
td {{ max-width: 24rem; overflow-wrap: break-word; white-space: normal }}
td:first-child {{ white-space: nowrap }}
thead th {{ border-bottom: 2px solid #999; vertical-align: bottom; font-weight: 600 }}
button {{ font: inherit; color: inherit; background: none; border: 0; padding: 0; cursor: pointer }}
th[aria-sort=ascending] button::after {{ content: " \\2191" }}
th[aria-sort=descending] button::after {{ content: " \\2193" }}
.config {{ background: #f6f7f9 }}
.differs {{ background: #fff1c9 }}
.dot {{ display: inline-block; width: .7em; height: .7em; border-radius: 50%; margin-right: .5em }}
summary {{ cursor: pointer; font-size: 1.1rem; font-weight: 600; margin: 2rem 0 .5rem }}
svg {{ display: block; width: 100%; height: auto; max-width: {width}rem }}
</style>
</head>
<body>
<h1>{title}</h1>
<h2>Results and differences</h2>
<p>A click on a heading sorts. Grey columns are facts and configuration, as far as the runs differ in them; what
differs from the first run is <span class="differs">marked</span>.</p>
<div class="wide">{table}</div>
<h2>Curves</h2>
<p>Dotted: train, a running mean. Line with points: validation. Star: test. Colours as in the table.</p>
{curves}
<details>
<summary>Whole configuration</summary>
<div class="wide">{configuration}</div>
</details>
<script>
for (const button of document.querySelectorAll("#results th button")) button.onclick = () => {{
  const head = button.parentElement, body = document.querySelector("#results tbody");
  const up = head.getAttribute("aria-sort") !== "ascending", sign = up ? 1 : -1;
  for (const other of head.parentElement.children) other.removeAttribute("aria-sort");
  head.setAttribute("aria-sort", up ? "ascending" : "descending");
  const text = row => row.children[head.cellIndex].textContent.trim();
  const isNumber = value => value !== "" && !isNaN(value);
  body.append(...[...body.children].sort((one, two) => {{
    const a = text(one), b = text(two);
    if ((a === "{nothing}") !== (b === "{nothing}")) return a === "{nothing}" ? 1 : -1;
    return sign * (isNumber(a) && isNumber(b) ? a - b : a.localeCompare(b));
  }}));
}};
</script>
</body>
</html>
"""


def write(runs: Sequence[Run], file: str | Path, baselines: Sequence[Run] = ()) -> None:
    """Write the page: results beside what differs, curves of all metrics, and the whole configurations.

    Args:
        runs: which.
        file: the page.
        baselines: what stands in the table alone, below the runs.

    Raises:
        InputError: when the file cannot be written.
    """
    try:
        Path(file).write_text(page(runs, baselines), encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise InputError(f"--html {file}: expected a file that can be written, found {error.strerror}") from error


def page(runs: Sequence[Run], baselines: Sequence[Run] = ()) -> str:
    """The page as text. Whatever runs say stands in it as text, never as HTML."""
    curves, listed = svg(runs), [*runs, *baselines]
    return PAGE.format(
        title=escape(runs[0].name if len(runs) == 1 else f"{len(runs)} runs compared"),
        table=results_table(listed, results(listed), differences(listed)),
        curves=curves or "<p>None: no metric was logged twice.</p>",
        configuration=configuration_table(runs),
        nothing=NOTHING,
        width=82,
    )


def results_table(runs: Sequence[Run], reached: Mapping[str, list[str]], differ: Mapping[str, list[str]]) -> str:
    """A row for each run, a column for each result and each difference."""
    heads = [("run", ""), *((key, "") for key in reached), *((key, ' class="config"') for key in differ)]
    lines = ['<table id="results"><thead><tr>']
    lines += [f'<th scope="col"{kind}><button type="button">{escape(key)}</button></th>' for key, kind in heads]
    lines += ["</tr></thead><tbody>"]
    for number, run in enumerate(runs):
        lines += [f'<tr><td><span class="dot" style="background: {color(number)}"></span>{escape(run.name)}</td>']
        lines += [f"<td>{escape(cells[number])}</td>" for cells in reached.values()]
        for cells in differ.values():
            kind = "differs" if cells[number] != cells[0] else "config"
            lines += [f'<td class="{kind}">{escape(cells[number])}</td>']
        lines += ["</tr>"]
    return "\n".join([*lines, "</tbody></table>"])


def configuration_table(runs: Sequence[Run]) -> str:
    """A row for each key, a column for each run; where they differ, the row is marked."""
    lines = ["<table><thead><tr><th></th>", *(f"<th>{escape(run.name)}</th>" for run in runs), "</tr></thead><tbody>"]
    for key in dict.fromkeys(key for run in runs for key in run.config):
        values = [as_text(run.config[key]) if key in run.config else NOTHING for run in runs]
        kind = ' class="differs"' if len(set(values)) > 1 else ""
        lines += [f"<tr{kind}><td>{escape(key)}</td>", *(f"<td>{escape(value)}</td>" for value in values), "</tr>"]
    return "\n".join([*lines, "</tbody></table>"])
