"""The page of compared runs: nothing from outside, nothing that a name could smuggle in; and a browser opens it."""

import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from matplotlib.image import imread

from perceiver_lightning.analysis.page import page, write
from perceiver_lightning.analysis.runs import Run
from perceiver_lightning.errors import InputError

BROWSER = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome", "chrome"])), None)
EVIL = "<script>document.title = 'evil'</script><img src=x onerror=\"document.title = 'evil'\">&amp;\"'"


def make(name, rate, accuracy, **config) -> Run:
    metrics = {"val/accuracy": [(9, accuracy / 2), (19, accuracy)], "train/loss": [(9, 2.0), (19, 1.0)]}
    return Run(name, Path(name), {"model.learning_rate": rate, "same": 1, **config}, metrics)


class Words(HTMLParser):
    """Tags and texts of a page, cells of its first table by row."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.rows: list[list[str]] = []
        self.sources: list[str] = []
        self.in_cell = False
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.sources += [value or "" for key, value in attributes if key in ("src", "href", "action", "srcset")]
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self.in_cell = True

    def handle_endtag(self, tag):
        self.in_cell = self.in_cell and tag not in ("td", "th")

    def handle_data(self, data):
        if self.in_cell:
            self.rows[-1][-1] += data


@pytest.mark.slow
@settings(max_examples=15)
@given(st.sampled_from([EVIL, "a & b", "{braces}"]) | st.text(max_size=20))
def test_what_runs_say_stands_there_as_text(name):
    name = re.sub(r"[\x00-\x1f\x7f\ud800-\udfff\s]+", " ", name).strip()
    plain, odd = page([make("x", 1, 0.5), make("y", 1, 0.5)]), page([make("x", 1, 0.5), make(name, 1, 0.5, z=name)])
    found = Words(odd)
    assert not set(found.tags) - set(Words(plain).tags)
    assert found.tags.count("script") == 1 and found.tags.count("img") == 0
    assert found.rows[2][0] == name
    if name != "-":
        assert dict(zip(found.rows[0], found.rows[2], strict=True))["z"] == name


def test_nothing_comes_from_outside():
    text = page([make("a", 1e-3, 0.5), make("b", 2e-3, 0.7)])
    addresses = set(re.findall(r"https?://[^\s\"'<]+", text))
    assert all("www.w3.org" in address for address in addresses)  # names of SVG's vocabulary; nothing is fetched
    assert all(source.startswith("#") for source in Words(text).sources)
    assert "default-src 'none'" in text


def test_differences_are_marked_and_what_is_the_same_is_not_among_them():
    text = page([make("a", 1e-3, 0.5), make("b", 2e-3, 0.7), make("c", 1e-3, 0.7)])
    head, *rows = Words(text).rows[:4]
    assert head[-1] == "model.learning_rate" and "same" not in head
    assert [row[-1] for row in rows] == ["0.001", "0.002", "0.001"]
    table = text[text.index('<table id="results"') : text.index("</table>")]
    assert re.findall(r'<td class="(\w+)">', table) == ["config", "differs", "config"]


def test_a_page_that_cannot_be_written_is_named(tmp_path):
    with pytest.raises(InputError, match=r"--html .*: expected a file that can be written, found No such file"):
        write([make("a", 1, 0.5)], tmp_path / "nowhere" / "page.html")


def browse(*arguments: str | Path) -> subprocess.CompletedProcess:
    if BROWSER is None:
        pytest.skip("no Chromium or Chrome on this machine: apt-get install chromium")
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--virtual-time-budget=3000"]
    return subprocess.run([BROWSER, *flags, *map(str, arguments)], capture_output=True, text=True, timeout=120)


@pytest.mark.slow
def test_a_browser_opens_it_and_sorts(tmp_path):
    runs = [make("middle", 1e-3, 0.5), make(EVIL, 2e-3, 0.75), make("low", 3e-3, 0.25), make("none", 3e-3, 0.3)]
    runs[3].metrics.pop("val/accuracy")
    file = tmp_path / "page.html"
    write(runs, file)
    click = """<script>
      const [head] = [...document.querySelectorAll("#results th")].filter(th => th.innerText == "best val/accuracy");
      const order = () => [...document.querySelectorAll("#results tbody td:first-child")].map(td => td.innerText);
      const rounds = [order()];
      for (let i = 0; i < 2; i++) { head.firstChild.click(); rounds.push(order()); }
      document.body.innerHTML = "";
      document.body.innerText = JSON.stringify(rounds.map(names => names.map(name => name.slice(0, 6))));
    </script></body>"""
    (tmp_path / "clicked.html").write_text(file.read_text().replace("</body>", click))
    done = browse("--dump-dom", f"file://{tmp_path}/clicked.html")
    assert (
        '[["middle","&lt;scrip","low","none"],["low","middle","&lt;scrip","none"],["&lt;scrip","middle","low","none"]]'
        in done.stdout
    )
    assert "CONSOLE" not in done.stderr, done.stderr  # no error of a script, nothing that the policy refused
    assert "<title>4 runs compared</title>" in done.stdout
    browse(f"--screenshot={tmp_path}/page.png", "--window-size=1000,800", f"file://{file}")
    picture = imread(tmp_path / "page.png")
    assert picture.shape[:2] == (800, 1000)
    for color in ((0.122, 0.467, 0.706), (1.0, 0.498, 0.055)):  # the first two runs' dots and curves
        assert (abs(picture[..., :3] - color).max(-1) < 0.02).sum() > 50
    assert (picture[..., :3].min(-1) > 0.95).mean() > 0.5  # light
