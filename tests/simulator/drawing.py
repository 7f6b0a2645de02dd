"""A trace as a picture: a lane for each party, time from left to right, a line for each frame.

One HTML file without anything from elsewhere. Time in which nothing happens is drawn short. Hover
over anything to read what it is.
"""

from collections.abc import Mapping, Sequence
from html import escape

from tests.simulator.trace import Line, told

LANE_PIXELS = 46
MARGIN_PIXELS = 150
SECOND_PIXELS = 240.0
QUIET_SECONDS = 0.15  # a longer pause is drawn as this
LINES_MAX = 6000
FAULTS = frozenset(
    {"crash", "restore", "lost", "closed", "refused", "clock", "stolen", "fork", "cheats"}
)
COLOURS: Mapping[str, str] = {
    "RUN": "#1f6fb4",
    "HEADS": "#8a8a8a",
    "WANT": "#2c9c69",
    "HAVE": "#b07aa1",
    "SEEN": "#c9c9c9",
    "FORKED": "#d62728",
    "SEALS": "#e0912f",
    "WANTSEALS": "#edc08c",
    "ERROR": "#d62728",
}
STYLE = """
body { font: 13px system-ui, sans-serif; margin: 16px; color: #222; background: #fff }
main { overflow-x: auto; border: 1px solid #ddd }
.lane { stroke: #ececec; stroke-width: 1 } .name { font-weight: 600 }
.act { stroke: #f0e3c0 } .fault { fill: #d62728 } .event { fill: #444 }
line:hover, circle:hover { stroke-width: 4; stroke: #000 }
ul { list-style: none; display: flex; gap: 16px; padding: 0; flex-wrap: wrap }
"""


def draw(lines: Sequence[Line], title: str) -> str:
    """Return the page."""
    shown = [line for line in lines if line.what not in ("PING", "PONG")][-LINES_MAX:]
    lanes = _lanes(shown)
    places = _places(shown)
    width = max(places.values(), default=0.0) + 2 * MARGIN_PIXELS
    height = LANE_PIXELS * (len(lanes) + 1)
    parts = [_rule(name, lane, width) for name, lane in lanes.items()]
    parts += [_mark(line, lanes, places, height) for line in shown]
    left_out = len(lines) - len(shown)
    note = f" The first {left_out} lines are not drawn." if left_out else ""
    legend = "".join(
        f'<li><b style="color:{colour}">—</b> {name}</li>' for name, colour in COLOURS.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        f"<style>{STYLE}</style><h1>{escape(title)}</h1>"
        f"<p>A lane for each party, time from left to right; pauses are drawn short.{note}</p>"
        f'<ul>{legend}<li><b style="color:#d62728">●</b> fault</li></ul>'
        f'<main><svg xmlns="http://www.w3.org/2000/svg" width="{width:.0f}" height="{height}">'
        f"{''.join(parts)}</svg></main></html>\n"
    )


def _lanes(lines: Sequence[Line]) -> dict[str, int]:
    """Give each party a lane, nodes above their devices."""
    names = {name for line in lines for name in (line.where, line.to) if name}
    names -= {"script", "invariant"}
    return {name: at for at, name in enumerate(sorted(names, key=_rank))}


def _rank(name: str) -> tuple[str, bool, str]:
    official, _, rest = name.partition("@")
    return (rest.partition("'")[0] or official, bool(rest), name)


def _places(lines: Sequence[Line]) -> dict[float, float]:
    """Return how far to the right each time is."""
    times = sorted({time for line in lines for time in (line.time, line.began) if time})
    places: dict[float, float] = {}
    x, before = 0.0, times[0] if times else 0.0
    for time in times:
        x += min(time - before, QUIET_SECONDS) * SECOND_PIXELS
        places[time] = x
        before = time
    return places


def _rule(name: str, lane: int, width: float) -> str:
    y = (lane + 1) * LANE_PIXELS
    return (
        f'<line class="lane" x1="0" x2="{width:.0f}" y1="{y}" y2="{y}"/>'
        f'<text class="name" x="6" y="{y - 6}">{escape(name)}</text>'
    )


def _mark(line: Line, lanes: Mapping[str, int], places: Mapping[float, float], height: int) -> str:
    x = MARGIN_PIXELS + places.get(line.time, 0.0)
    hover = f"<title>{escape(told(line))}</title>"
    if line.to:
        begin = MARGIN_PIXELS + places.get(line.began, 0.0)
        y, z = ((lanes[name] + 1) * LANE_PIXELS for name in (line.where, line.to))
        colour = COLOURS.get(line.what, "#999")
        return (
            f'<line x1="{begin:.1f}" y1="{y}" x2="{x:.1f}" y2="{z}" stroke="{colour}"'
            f' stroke-width="1.4">{hover}</line>'
        )
    if line.where not in lanes:
        text = f'<text x="{x:.1f}" y="12" font-size="9">{escape(line.what)}</text>'
        ends = f'x1="{x:.1f}" x2="{x:.1f}" y1="14" y2="{height}"'
        return f'<line class="act" {ends}>{hover}</line>{text}'
    kind = "fault" if line.what in FAULTS else "event"
    y = (lanes[line.where] + 1) * LANE_PIXELS
    return f'<circle class="{kind}" cx="{x:.1f}" cy="{y}" r="4">{hover}</circle>'
