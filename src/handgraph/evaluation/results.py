"""What `reproduce` found, as text: one document as a page, or all stored ones as the results page."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from handgraph.errors import FormatError

VERDICTS = {True: "holds", False: "fails", None: "undecided"}
EXAMINED = "examined.json"
"""Beside the documents: what was found out about single claims, `{"TABLE": {"CLAIM": "TEXT"}}`."""

_INTRODUCTION = """# Results

Written by `handgraph reproduce --page`, from the documents in `results/`; do not edit. How tables are made
small, and what decides whether an order holds, is in [reproducing tables](reproduce.md). The papers' figures
are on their own data sets with networks many times as large: orders can be compared, figures cannot.
"""


def markdown(document: Mapping[str, Any], examined: Mapping[str, str] | None = None) -> str:
    """A document of `reproduce` as a page: the table, the claims, and what it ran on."""
    if "stated" in document:
        return _stated(document, examined)
    unit, seeds = document["unit"], document["seeds"]
    paper, test, metric = document["paper_dataset"], document["dataset"], document["metric"]
    lines = [
        f"## {document['table']}: {document['title']}",
        "",
        f"{metric}{f' ({unit})' if unit else ''}. The paper's figures are on {paper}; ours on {test}, scale "
        f"{document['scale']}, {'seed' if len(seeds) == 1 else 'seeds'} {', '.join(map(str, seeds))}.",
        "",
    ]
    if document["scale"] == "tiny":
        lines += ["Scale tiny proves that everything runs; its figures and verdicts mean nothing.", ""]
    beside = sorted({key for row in document["rows"] for key in row.get("beside", {})})
    header = ["row", "paper", "ours", "95 %", *(f"{key}: paper, ours" for key in beside)]
    lines += ["| " + " | ".join([*header, "parameters", "minutes"]) + " |", "|---" * (len(header) + 2) + "|"]
    for row in document["rows"]:
        cells = [row["name"], "" if row["paper"] is None else f"{row['paper']:g}"]
        if "ours" in row:
            low, high = row["interval95"]
            cells += [_short(row["ours"]), f"{_short(low)} to {_short(high)}"]
            for key in beside:
                both = row.get("beside", {}).get(key)
                cells.append("" if both is None else f"{both['paper']:g}, {_short(both['ours'])}")
            cells += [f"{row['parameters']:,}", f"{row['minutes']:.1f}"]
        else:
            cells += ["not ours", *[""] * (len(header) - 1)]
        lines.append("| " + " | ".join(cells) + " |")
    if document["claims"]:
        lines += ["", "| the text says | here | gain (95 %) |", "|---|---|---|"]
    for claim in document["claims"]:
        gain = claim.get("why", "")
        if "interval95" in claim:
            low, high = claim["interval95"]
            gain = f"{_short(claim.get('gain', claim.get('figure')))} ({_short(low)} to {_short(high)})"
        lines.append(f"| {claim['claim']} | {VERDICTS[claim['holds']]} | {gain} |")
    return "\n".join([*lines, *_notes(examined), "", _ran_on(document), ""])


def _notes(examined: Mapping[str, str] | None) -> list[str]:
    return ["", *(f"- {claim}: {text}" for claim, text in examined.items())] if examined else []


def page(folder: str | Path) -> str:
    """The results page: counts over all documents of `folder`, then each of them. Tiny ones are left out.

    Raises FormatError for a document that cannot be read.
    """
    folder = Path(folder)
    documents = [_read(path) for path in sorted(folder.glob("*.json")) if path.name != EXAMINED]
    examined = _read(folder / EXAMINED) if (folder / EXAMINED).is_file() else {}
    tables = [one for one in documents if one.get("scale") in ("small", "paper")]
    lines = [_INTRODUCTION, _counts(tables), ""]
    sizes = [one for one in documents if "stated" in one]
    lines += [markdown(one, examined.get(one["table"])) for one in (*sizes, *tables)]
    return "\n".join(lines).rstrip() + "\n"


def _counts(tables: Sequence[Mapping[str, Any]]) -> str:
    lines = ["| table | seeds | minutes | holds | fails | undecided |", "|---|---|---|---|---|---|"]
    total = [0, 0, 0]
    for one in tables:
        verdicts = [claim["holds"] for claim in one["claims"]]
        counts = [sum(verdict is kind for verdict in verdicts) for kind in VERDICTS]
        total = [before + more for before, more in zip(total, counts, strict=True)]
        cells = [one["table"], str(len(one["seeds"])), f"{one['minutes']:.0f}", *map(str, counts)]
        lines.append("| " + " | ".join(cells) + " |")
    lines.append(
        "| all | | " + f"{sum(one['minutes'] for one in tables):.0f} | " + " | ".join(map(str, total)) + " |"
    )
    return "\n".join(lines)


def _stated(document: Mapping[str, Any], examined: Mapping[str, str] | None) -> str:
    lines = [
        "## Sizes and speeds that the papers state",
        "",
        "Parameters are those of the papers' configurations. Milliseconds are one image's, of this machine",
        "beside the papers' GPUs: they cannot hold or fail, shares of them can. A size holds within half of",
        "its last printed digit, and a tenth more for its rounding; a share within five percentage points.",
        "",
        "| paper | the text says | paper | here | |",
        "|---|---|---|---|---|",
    ]
    for one in document["stated"]:
        verdict = VERDICTS[one["holds"]] if one["comparable"] else "other hardware"
        ours = f"{one['ours']:.4g}" if one["unit"] == "M" else _short(one["ours"])
        cells = [
            one["paper"],
            one["text"],
            f"{one['printed']:g} {one['unit']}",
            f"{ours} {one['unit']}",
            verdict,
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, *_notes(examined), "", _ran_on(document), ""])


def _ran_on(document: Mapping[str, Any]) -> str:
    minutes = f"{document['minutes']:.0f} minutes on " if "minutes" in document else ""
    return f"{minutes}{document['machine']}, torch {document['torch']}, commit {document['commit']}."


def _short(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 10 else f"{value:.1f}"


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FormatError(f"{path}: no document of reproduce ({error})") from None
    if not isinstance(found, dict):
        raise FormatError(f"{path}: found a {type(found).__name__}, expected a document of reproduce")
    return found
