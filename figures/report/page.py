"""report.html: the story from theory to images, every figure with caption, command, settings and spread, sortable tables, the explorer."""

from __future__ import annotations

import base64
import csv
import functools
import html
import io
import json
import re
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from string import Template
from typing import Any

from PIL import Image

from command_line.output import UserError, write_whole
from figures.experiments import EXPERIMENTS, experiment_of
from figures.image_figures import forecast, pipeline, pipeline_gtsrb, pipeline_mnist, predicted_worth, radius, where_guidance_gains
from figures.inputs import Files, seeds_of
from figures.registry import SECTIONS, Entry, all_names, entries
from figures.report.glossary import glossary
from figures.report.separation import as_script, separation_block, separation_numbers
from figures.report.verdicts import verdict_table
from figures.state import code_digest, digests_of, forget, made_from, remember, what_changed
from figures.table import sort_key, text_of
from figures.tables import ablations, claims, claims_photographs

HERE = Path(__file__).resolve().parent
PARTS = ("page.html", "page.css", "law.js", "address.js", "reading.js", "explorer.js", "separation.html", "separation.js")
STORY = {
    "theory_figures": (
        "Theory: what makes synthetic data good",
        "For Gaussian classes the robust accuracy of a learner is exact at any number of samples. For averaging, class separation and "
        "the number of samples enter through one number, κ; a rotated class mean sets a ceiling; and with many samples per dimension "
        "learners trained with cross-entropy have a best separation, beyond which more of it costs samples.",
    ),
    "diffusion_figures": (
        "Guided diffusion: checks on Gaussian classes",
        "With exact scores the sampler can be checked to many digits and each guidance compared with the best that any could do. "
        "Guidance buys distinguishability for distance from the real classes; without anchors it may turn them; fewer steps "
        "separate them unasked.",
    ),
    "image_figures": (
        "Images: what held, and what did not",
        "The claim: the more distinguishable the synthetic classes, the more robust the classifier; so guide them apart. Theory "
        "objects that with many samples per dimension learners trained with cross-entropy have a best separation. On images, pushing "
        "classes apart costs; spreading each class gains on digits and MNIST, not on traffic signs. No rule that we tried tells beforehand "
        "where.",
    ),
    "tables": (
        "Tables",
        "Sort by any heading; long tables can be searched. Each table also lies beside the figures as csv, Markdown and LaTeX.",
    ),
}
NAVIGATION = {"diffusion_figures": "Guided diffusion"}
SLIDERS = (
    ("d", "dimension d", 371),
    ("norm", "distance of a class mean from the boundary ‖μ‖", 750),
    ("sigma", "standard deviation σ", 455),
    ("eps", "attack radius ε", 167),
    ("c", "class separation c (1: as real)", 750),
    ("n", "synthetic samples n", 175),
    ("angle", "misalignment (angle)", 0),
)
SHOWN = 0.68  # scale of pictures: two panels fill the page, and one panel has the same size
LEAST = 0.62  # of that on a phone, where wide pictures scroll sideways: letters of 7 points are 8 pixels high
SHOWN_FIRST = (
    "accuracy_against_n",
    "class_snr",
    "guidance_gallery",
    "price_gain",
    "digit_samples",
    "pipeline",
    "where_guidance_gains",
    "exchange_rate",
    "comparisons_confirmed",
)
"""Figures that are open when the page opens; the others, and all tables, are folded."""
LONG = 15
"""Rows of a table that need no search."""
FIGURE_NAMED = re.compile(r"figure ([a-z0-9]+(?:_[a-z0-9]+)+)")
HYPHEN = re.compile(r"(?<![\w-])-(?=\d)")
"""The sign of a number."""
SHADES = 18
"""Of each colour in a drawing: nobody sees a difference, and it takes two thirds of the bytes."""
PHONE = "(max-width: 600px)"
STACKED = "On a phone the panels stand one below the other, row by row: what the caption calls left comes first."
PIXELS = ("digit_samples", "gtsrb_samples", "cifar10_samples")
"""Pictures of images, which keep their colours by night."""


def make_report(out: Path, files: Files, force: bool, errors: dict[str, str]) -> tuple[bool, list[str]]:
    """Write OUT/report.html unless it is current. Returns whether it was written, and problems with the experiments' summaries.

    errors: {name: why this figure could not be made}.
    """
    drawn = out / "drawn"
    now: dict[str, Any] = {"code": code_digest("figures.report.page"), "parts": [_read(name) for name in PARTS], "errors": errors}
    now["words"] = glossary()
    now["results"] = digests_of(dict.fromkeys(name for e in entries() for name in e.figure.inputs), files)  # verdicts read them too
    now["drawn"] = {e.name: (drawn / ".state" / f"{e.name}.json").read_text() for e in entries() if _is_current(e, drawn, files)}
    now["provenance"], wrong = _provenance(files, {name for e in entries() for name in e.figure.inputs})
    if not force and not what_changed("report", now, out):
        return False, wrong
    forget("report", out)
    page = compose(drawn, files, errors, now["provenance"])
    written = write_whole(out / "report.html", lambda path: path.write_text(page, encoding="utf-8"))
    remember("report", now, out, [written])
    return True, wrong


def compose(drawn: Path, files: Files, errors: dict[str, str], provenance: str) -> str:
    """The HTML of the page."""
    contents, sections = [], []
    for section in SECTIONS:
        title, words = STORY[section]
        contents.append(f'<li><a href="#{section}">{html.escape(NAVIGATION.get(section, title.split(":")[0]))}</a></li>')
        blocks = [_block(entry, drawn, files, errors) for entry in entries(SECTIONS[section])]
        sections += [f'<h2 id="{section}">{html.escape(title)}</h2>', f"<p>{html.escape(words)}</p>"]
        sections += [_findings(files)] if section == "image_figures" else []
        sections += blocks
    ways = separation_numbers(files)
    words = glossary()
    contents += ['<li><a href="#words">Words</a></li>'] * bool(words) + ['<li><a href="#how">How made</a></li>']
    return Template(_read("page.html")).substitute(
        css=_read("page.css"),
        law=_read("law.js"),
        address=_read("address.js"),
        reading=_read("reading.js"),
        explorer=_read("explorer.js"),
        separation=separation_block(ways),
        separation_numbers=as_script(ways),
        separation_script=_read("separation.js"),
        contents="\n".join(contents),
        summary_picture=_summary_picture(drawn, files),
        verdicts=verdict_table(files),
        sliders="\n".join(_slider(*slider) for slider in SLIDERS),
        sections="\n".join(sections),
        words=words,
        provenance=provenance,
    )


def _findings(files: Files) -> str:
    """What the results of images say in full, folded."""
    lines = []
    for told in (
        pipeline,
        pipeline_mnist,
        pipeline_gtsrb,
        where_guidance_gains,
        predicted_worth,
        ablations,
        claims,
        forecast,
        radius,
        claims_photographs,
    ):
        with suppress(UserError):  # reported in place of the table or figure
            said = [html.escape(HYPHEN.sub("−", line)) for line in told.finding(files).splitlines()]
            lines.append(f"<ul>{''.join(f'<li>{line}</li>' for line in said)}</ul>" if len(said) > 1 else f"<p>{''.join(said)}</p>")
    return f'<details class="more"><summary>What the numbers say, in full</summary>{"".join(lines)}</details>'


def _summary_picture(drawn: Path, files: Files) -> str:
    """The phase diagram, as a picture that leads to its figure; nothing if it could not be made."""
    (entry,) = entries(("phase_diagram",))
    if not _is_current(entry, drawn, files):
        return ""
    picture = _picture(drawn / f"{entry.name}.png", html.escape(entry.figure.title))
    said = (
        "Theory: error of the direction that logistic regression learns, over the smallest of its curve (lower is better), against "
    )
    said += "how far apart the classes are, for few and many samples per dimension n/d. Ridge: weight decay. Right: the best separation."
    return f'<div class="drawing whole">{picture}</div><p class="made">{said} <a href="#{entry.name}">More</a></p>'


def _block(entry: Entry, drawn: Path, files: Files, errors: dict[str, str]) -> str:
    figure, about = entry.figure, FIGURE_NAMED.sub(_linked, html.escape(entry.figure.caption))
    link = f'<a class="here" href="#{entry.name}" aria-label="Link to {html.escape(figure.title)}">#</a>'
    title = f'<h3 id="{entry.name}">{html.escape(figure.title)}{link}</h3>'
    if not _is_current(entry, drawn, files):
        reason = errors.get(entry.name, "not made from these results; run python figures/regenerate.py")
        return f'<section class="failed">{title}<p>This figure could not be made: {html.escape(reason)}</p></section>'
    if entry.is_table:
        try:
            shown = _table(entry, files)
        except UserError as error:
            return f'<section class="failed">{title}<p>This table could not be read: {html.escape(str(error))}</p></section>'
    else:
        shown = _picture(drawn / f"{entry.name}.png", html.escape(figure.title))
    kind = "" if entry.is_table or entry.name in PIXELS else ' class="drawing"'
    words = [shown, f"<figcaption>{about}</figcaption>"]
    parts = words[::-1] if entry.is_table else words  # a long table hides what stands below it
    inside = f'{"".join(parts)}<p class="made">{_made(entry, files)}</p>'
    if entry.name in SHOWN_FIRST:
        return f"<figure{kind}>{title}{inside}</figure>"
    return f'<details class="more"><summary>{title}</summary><figure{kind}>{inside}</figure></details>'


def _linked(found: re.Match[str]) -> str:
    """A figure that a caption names, as a link with its title."""
    if found[1] not in all_names():
        return found[0]
    (entry,) = entries((found[1],))
    return f'<a href="#{entry.name}">{html.escape(entry.figure.title)}</a>'


def _made(entry: Entry, files: Files) -> str:
    """Settings, the runs that it shows, each a link to the command that made it, and the file of its numbers."""
    experiments = dict.fromkeys(experiment_of(name).name for name in entry.figure.inputs)
    runs = (f'<a href="#made-{name}">{name}</a>{_seeds(files, name)}' for name in experiments)
    about = f"{html.escape(entry.figure.settings)}. " if entry.figure.settings else ""
    return f"{about}Made by {', '.join(runs)}. Numbers: <code>drawn/{entry.name}.csv</code>."


def panels_of(path: Path) -> int:
    """How many panels the numbers of a figure belong to."""
    with path.open(newline="", encoding="utf-8") as stream:
        return len({row["panel"] for row in csv.DictReader(stream) if "panel" in row})


@functools.lru_cache(maxsize=128)  # a program that composes several pages encodes a picture once
def _source(content: bytes, shades: int) -> tuple[str, tuple[int, int]]:
    """The picture in the page, in a form that takes few bytes; and its width and height. shades: of each colour, 256 for all."""
    encoded = io.BytesIO()
    with Image.open(io.BytesIO(content)) as image:
        step = 255 / (shades - 1)
        coarse = image.convert("RGB").point([round(round(value / step) * step) for value in range(256)] * 3)
        coarse.save(encoded, "WEBP", lossless=True, method=4)
        return f"data:image/webp;base64,{base64.b64encode(encoded.getvalue()).decode()}", image.size


def _picture(path: Path, text: str) -> str:
    """An image tag with its size, so that the layout does not shift while pictures load."""
    shades = 256 if path.stem in PIXELS else SHADES
    source, sides = _source(path.read_bytes(), shades)
    width, height = (round(SHOWN * side) for side in sides)
    narrow, other = path.parent / "phone" / path.name, ""
    if narrow.is_file():
        smaller, (across, down) = _source(narrow.read_bytes(), shades)
        other = f'<source media="{PHONE}" width="{across}" height="{down}" srcset="{smaller}">'
    least = "0" if other else f"{LEAST * width:.0f}px"
    image = f'<img alt="{text}" loading="lazy" width="{width}" height="{height}" style="--least: {least}" src="{source}">'
    shown = f"<picture>{other}{image}</picture>" if other else image
    stacked = f'<p class="made stacked">{STACKED}</p>' if other and panels_of(path.with_suffix(".csv")) > 1 else ""
    return f'<div class="wide picture" tabindex="0" role="region" aria-label="{text}">{shown}</div>{stacked}'


def _table(entry: Entry, files: Files) -> str:
    rows: list[list[Any]] = entry.module.rows(files)
    kinds = [' class="text"' if any(isinstance(row[j], str) for row in rows) else "" for j in range(len(entry.module.HEADER))]
    head = "".join(
        f'<th scope="col"{kind}><button type="button">{html.escape(name)}</button></th>'
        for name, kind in zip(entry.module.HEADER, kinds, strict=True)
    )
    body = "".join(f"<tr>{''.join(map(_cell, entry.module.HEADER, row))}</tr>" for row in rows)
    label = html.escape(entry.figure.title)
    inside = f'<table id="table-{entry.name}"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
    search = _search(entry.name, rows) if len(rows) > LONG else ""
    return f'{search}<div class="wide rows" tabindex="0" role="region" aria-label="{label}">{inside}</div>'


def _search(name: str, rows: list[list[Any]]) -> str:
    """A box that leaves the rows of a table which have every word typed."""
    example = html.escape(text_of(rows[0][0]))
    box = f'<input type="search" autocomplete="off" aria-controls="table-{name}" placeholder="for example: {example}">'
    return f'<label class="search">Search the rows {box}<output>{len(rows)} rows</output></label>'


def _cell(heading: str, cell: Any) -> str:
    key, text = sort_key(cell), text_of(cell)
    text = text if isinstance(cell, str) else text.replace("-", "−")
    kind = ' class="text"' if isinstance(cell, str) else ' class="long"' if len(text) > 9 else ""
    of = f'data-of="{html.escape(heading)}"'  # a phone shows it before the value
    return f'<td{kind} {of} data-key="{html.escape(str(key)) if text else ""}">{html.escape(text)}</td>'


def _slider(name: str, label: str, start: int) -> str:
    value = f'<output id="value-{name}" for="slider-{name}"></output>'
    box = f'<input type="range" id="slider-{name}" min="0" max="1000" step="1" value="{start}">'
    return f'<div><label for="slider-{name}"><span>{html.escape(label)}</span>{value}</label>{box}</div>'


def _command(files: Files, experiment: str) -> str:
    """The command that made the results: as recorded, or the experiment's command at the size given in its summary."""
    try:
        noted = files.provenance().get(experiment, {}).get("command")
        quick = bool(files.summary(experiment)["settings"].get("quick"))
    except UserError:  # said where the page tells how results were made
        noted, quick = None, False
    return str(noted or EXPERIMENTS[experiment].command(quick))


def _seeds(files: Files, experiment: str) -> str:
    """The seeds of an experiment in brackets, from its summary."""
    try:
        summary = files.summary(experiment)
    except UserError:  # said where the page tells how results were made
        return ""
    first, count = summary["settings"].get("seed"), seeds_of(summary)
    return f" (seeds {first} to {first + count - 1})" if count and count > 1 else "" if first is None else f" (seed {first})"


def _provenance(files: Files, inputs: Iterable[str]) -> tuple[str, list[str]]:
    """Command, settings, versions and date of every experiment, as far as its files say; and problems with these files."""
    parts, wrong = [], []
    try:
        dates = files.provenance()
    except UserError as error:
        dates, wrong = {}, [str(error)]
    for name in dict.fromkeys(experiment_of(one).name for one in sorted(inputs)):
        try:
            summary = files.summary(name)
        except UserError as error:
            if not EXPERIMENTS[name].data or (files.folder / name).is_dir():  # experiments that need data may be missing
                wrong.append(str(error))
            parts.append(f'<details id="made-{name}"><summary>{name}</summary><p>{html.escape(str(error))}</p></details>')
            continue
        of = dates.get(name, {})
        when = f", {html.escape(str(of['date']))}" if "date" in of else ""
        facts = {"settings": summary.get("settings", {}), "versions": summary.get("versions", {}), "seconds": of.get("seconds")}
        lines = html.escape(json.dumps({key: value for key, value in facts.items() if value}, indent=1, ensure_ascii=False))
        words = " ".join(f"<span>{html.escape(word)}</span>" for word in _command(files, name).split())  # a line ends between words
        head = f"{name}: <code>{words}</code>{when}"
        parts.append(f'<details id="made-{name}"><summary>{head}</summary><pre><code>{lines}</code></pre></details>')
    return "\n".join(parts), wrong


def _is_current(entry: Entry, drawn: Path, files: Files) -> bool:
    """Whether the drawn files are what would be drawn now."""
    return not what_changed(entry.name, made_from(entry, files), drawn)


def _read(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")
