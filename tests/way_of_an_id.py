"""Draw README's picture of the way of an id: `python tests/way_of_an_id.py` writes the SVG."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import escape

PLACE = Path(__file__).with_suffix(".svg")

WIDTH, HEIGHT = 920, 250
#: x, y, width, title, second line; a box is 54 high.
BOXES = {
    "producer": (20, 40, 150, "your service", "hands ids over"),
    "store": (250, 40, 190, "Redis", "what is tracked, and due"),
    "dispatch": (250, 160, 190, "dispatch", "beat's tick: which ids now"),
    "retrieve": (520, 160, 170, "retrieve", "one call, many ids"),
    "api": (760, 160, 140, "remote API", "retrieve_batch"),
    "deliver": (520, 40, 170, "deliver", "signed webhooks"),
    "receiver": (760, 40, 140, "your receiver", "answers 2xx"),
}
#: From, to, label; the points are worked out from the sides that face each other.
ARROWS = (
    ("producer", "store", "submit"),
    ("store", "dispatch", "due ids"),
    ("dispatch", "retrieve", "batch"),
    ("retrieve", "api", ""),
    ("retrieve", "store", "result + deliveries, one write"),
    ("store", "deliver", "pending"),
    ("deliver", "receiver", ""),
)
HIGH = 54
STYLE = """
  .box { fill: #ffffff; stroke: #4b5563; stroke-width: 1.5; }
  .ours { fill: #fef3c7; }
  .title { font: 600 15px system-ui, sans-serif; fill: #111827; }
  .small { font: 12px system-ui, sans-serif; fill: #374151; }
  .arrow { stroke: #4b5563; stroke-width: 1.5; fill: none; marker-end: url(#tip); }
  .ground { fill: #f9fafb; }
"""
OURS = ("store", "dispatch", "retrieve", "deliver")


def box(name: str) -> str:
    """One box with its two lines."""
    x, y, width, title, below = BOXES[name]
    kind = "box ours" if name in OURS else "box"
    middle = x + width / 2
    return (
        f'<rect class="{kind}" x="{x}" y="{y}" width="{width}" height="{HIGH}" rx="6"/>'
        f'<text class="title" x="{middle:g}" y="{y + 23}" '
        f'text-anchor="middle">{escape(title)}</text>'
        f'<text class="small" x="{middle:g}" y="{y + 42}" '
        f'text-anchor="middle">{escape(below)}</text>'
    )


def arrow(start: str, end: str, label: str) -> str:
    """One arrow between the sides of two boxes that face each other."""
    x1, y1, wide1, *_ = BOXES[start]
    x2, y2, wide2, *_ = BOXES[end]
    if y1 == y2:
        begin, stop = (x1 + wide1, y1 + HIGH / 2), (x2 - 2, y2 + HIGH / 2)
    elif x1 == x2:
        begin, stop = (x1 + wide1 / 2, y1 + HIGH), (x2 + wide2 / 2, y2 - 2)
    else:  # back from the lower right to the upper left
        begin, stop = (x1 + 30, y1), (x2 + wide2 - 30, y2 + HIGH + 2)
    line = f'<path class="arrow" d="M{begin[0]:g} {begin[1]:g} L{stop[0]:g} {stop[1]:g}"/>'
    if not label:
        return line
    x, y = (begin[0] + stop[0]) / 2, (begin[1] + stop[1]) / 2
    anchor, dx, dy = (
        ("middle", 0, -8) if y1 == y2 else ("end", -8, 4) if x1 == x2 else ("start", 30, 0)
    )
    return line + (
        f'<text class="small" x="{x + dx:g}" y="{y + dy:g}" text-anchor="{anchor}">'
        f"{escape(label)}</text>"
    )


def drawing() -> str:
    """The whole SVG."""
    parts = [*(arrow(*each) for each in ARROWS), *(box(name) for name in BOXES)]
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img">',
            "<title>The way of an id: submit, dispatch, retrieve, settle, deliver</title>",
            f"<style>{STYLE}</style>",
            '<defs><marker id="tip" markerWidth="9" markerHeight="9" refX="7" refY="4" '
            'orient="auto">'
            '<path d="M0 0 L8 4 L0 8 z" fill="#4b5563"/></marker></defs>',
            f'<rect class="ground" width="{WIDTH}" height="{HEIGHT}" rx="8"/>',
            *parts,
            "</svg>",
            "",
        )
    )


if __name__ == "__main__":
    PLACE.write_text(drawing())
