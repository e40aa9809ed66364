"""Writes docs/networks.md from the networks themselves: `python -m LKSegmentLib.networks.documentation [FILE]`."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from LKSegmentLib.networks import description, registry

_INTRODUCTION = """\
# Networks

This page is generated from the code (`python -m LKSegmentLib.networks.documentation`); a test
fails when it is out of date, and others count parameters and multiply-accumulates (MACs) again. `lksegment
networks` prints the list, `lksegment networks NAME` all about one.

```python
import LKSegmentLib as lk

net = lk.networks.create("dnet", in_channels=1, out_channels=16)  # a torch.nn.Module; call it -> logits
lk.networks.load_official(net, state_dict)  # weights in the authors' key layout, strictly
lk.networks.describe("dnet")  # what this page says about it, as a dictionary
```

Labels: **exact**: tensor for tensor the published network. **reconstruction**: parts had to be inferred, and
which ones is said. **own**: designed in this project. **baseline**: taken from MONAI as it is.
"""

_BASELINES = """\
They need the packages of the extra `training`: `pip install monai einops`. MONAI is licensed under Apache-2.0.
Counted at 1×96³ with 16 classes. Their receptive fields are not derived here; `lk.reach` measures one on an image.
"""


def markdown() -> str:
    """The whole page."""
    rows = description.table()
    parts = [_INTRODUCTION, "## All of them\n", _overview(rows), f"**Counting.** {description.COUNTING}\n"]
    parts += [_section(row["name"]) for row in rows if row["status"] != "baseline"]
    parts += ["## Baselines\n", _baselines([row["name"] for row in rows if row["status"] == "baseline"])]
    return "\n".join(parts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page to the file given, or to docs/networks.md of this checkout."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    target = Path(given[0]) if given else Path(__file__).resolve().parents[2] / "docs" / "networks.md"
    target.write_text(markdown(), encoding="utf-8")
    print(target)
    return 0


def _overview(rows: Iterable[dict[str, Any]]) -> str:
    return _table(
        ("name", "network", "label", "channels → classes", "parameters", "input", "MACs", "sizes"),
        (
            (
                f"`{row['name']}`",
                row["title"],
                row["status"],
                f"{row['in_channels']} → {row['out_channels']}",
                f"{row['params']:,}",
                _times(row["size"]),
                f"{row['macs'] / 1e9:.2f} G",
                _sizes(row["name"]),
            )
            for row in rows
        ),
    )


def _section(name: str) -> str:
    told = description.describe(name)
    lines = [
        f"## {told['title']} (`{name}`)\n",
        f"{told['summary']}\n",
        f"**{told['status'].capitalize()}.** {told['status_note']}\n",
        f"**Citation.** {told['citation']}\n",
        f"**Licence.** {told['licence']}\n",
        f"**Counts.** {told['params']:,} parameters and {told['macs']:,} MACs at "
        f"{_times(told['reference_size'])}, "
        f"with {_call(told['reference'])}. Input sizes: {_sizes(name)}.\n",
    ]
    if told["published"]:
        rows = ((figure["quantity"], figure["figure"], figure["note"]) for figure in told["published"])
        lines.append(_table(("published", "figure", "and here"), rows))
    if told["receptive_fields"]:
        lines.append(_fields(told["receptive_fields"], told["receptive_note"]))
    for title, key in (
        ("Known problems of what was published", "known_problems"),
        ("Where this implementation departs", "deviations"),
        ("Remarks", "remarks"),
    ):
        if told[key]:
            lines.append(f"**{title}**\n\n" + "".join(f"- {entry}\n" for entry in told[key]))
    lines.append(_options(told["options"]))
    return "\n".join(lines)


def _baselines(names: Sequence[str]) -> str:
    rows = []
    for name in names:
        facts = registry.facts(name)
        options = ", ".join(f"`{option}`" for option in registry.options(name) if not option.endswith("_channels"))
        printed = "; ".join(f"{one.quantity} {one.figure} ({one.note})" for one in facts.published)
        rows.append((f"`{name}`", facts.summary, facts.citation, printed, options, " ".join(facts.remarks)))
    return f"{_BASELINES}\n" + _table(("name", "what", "citation", "published", "options", "remark"), rows)


def _fields(fields: Iterable[dict[str, Any]], note: str) -> str:
    rows = ((field["stage"], field["stride"], field["voxels"]) for field in fields)
    return f"{note}\n\n" + _table(("stage", "stride", "voxels"), rows)


def _options(options: dict[str, dict[str, Any]]) -> str:
    rows = (
        (
            f"`{option}`",
            "required" if facts["required"] else f"`{facts['default']!r}`",
            ", ".join(f"`{choice!r}`" for choice in facts["choices"]) if facts["choices"] else "",
        )
        for option, facts in options.items()
    )
    return "Options of `create`:\n\n" + _table(("option", "default", "allowed"), rows)


def _sizes(name: str) -> str:
    facts = registry.facts(name)
    if facts.size_multiple == 1:
        return "any" if facts.minimum_size == 1 else f"any, at least {facts.minimum_size}"
    return f"multiples of {facts.size_multiple}, at least {facts.minimum_size}"


def _call(options: dict[str, Any]) -> str:
    return ", ".join(f"`{option}={value!r}`" for option, value in options.items())


def _times(size: Sequence[int]) -> str:
    return "×".join(str(edge) for edge in size)


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
    lines += ["| " + " | ".join(str(cell).replace("|", "\\|") for cell in row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    raise SystemExit(main())
