"""`python -m tests.soak [--hours H] [--rate R] [--seed N] [--out FILE] [--json]`: load, for long.

Two agencies in processes of their own; two officials who write without end; nodes and devices that
are killed, lines that are cut, a node that stands still, visitors. Every few seconds memory,
descriptors, tasks, objects, delivery and disk go to FILE, a JSON object a line, as `figures.py`
reads them. In the end everything is healed, and all must store the same; if not, it ends with 1.

`python -m tests.soak.plot FILE` draws it.
"""

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random, SystemRandom
from tempfile import TemporaryDirectory
from typing import BinaryIO

import msgspec

from bench.processes import leave_on_sigterm
from tests.soak.faults import Faults
from tests.soak.figures import Counted, Happened, Record, Sample, grown, slopes
from tests.soak.stage import Actor, Stage, staged

SAMPLE_SECONDS = 5.0
COUNT_SHARE = 0.25  # of the time, after which objects are counted for the first time
TICK_SECONDS = 0.2
SETTLE_SECONDS_MAX = 180.0
OUT = Path("build") / "soak.jsonl"


class Soak:
    """One soak, as it goes. out: where it is written down."""

    def __init__(self, stage: Stage, seed: int, out: BinaryIO) -> None:
        self.stage = stage
        self.records: list[Record] = []
        self._out = out
        self._begun = time.monotonic()
        self.faults = Faults(stage, Random(seed), self._happened)

    def run(self, seconds: float) -> None:
        """Go on for so long."""
        self.faults.begin(self.at)
        sample_at, count_at = 0.0, COUNT_SHARE * seconds
        while self.at < seconds:
            self.faults.happen(self.at)
            if self.at >= sample_at:
                self._sample()
                sample_at = self.at + SAMPLE_SECONDS
            if self.at >= count_at:
                self._count()
                count_at = float("inf")
            time.sleep(TICK_SECONDS)
        self._count()

    @property
    def at(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._begun

    def _sample(self) -> None:
        for node, site in zip(self.stage.nodes, self.stage.sites, strict=True):
            self._look(node, {"disk_mib": self.stage.disk_mib(site)})
        for official in self.stage.officials:
            self._look(official, {})

    def _look(self, actor: Actor, more: dict[str, float]) -> None:
        told = {name: float(value) for name, value in actor.ask("look", "looked").items()}
        values = actor.seen() | more | told
        self._write(Sample(at=self.at, who=actor.name, starts=actor.starts, values=values))

    def _count(self) -> None:
        node = self.stage.nodes[0]
        objects = {name: float(n) for name, n in node.ask("count", "counted").items()}
        self._write(Counted(at=self.at, who=node.name, objects=objects))

    def _happened(self, how: str, who: str) -> None:
        print(f"{self.at:7.0f} s  {how} {who}", file=sys.stderr, flush=True)
        self._write(Happened(at=self.at, how=how, who=who))

    def _write(self, record: Record) -> None:
        self.records.append(record)
        self._out.write(msgspec.json.encode(record) + b"\n")
        self._out.flush()

    def figures(self) -> dict[str, object]:
        """What it came to: slopes an hour of the node that lived through it, and of officials."""
        first = self.stage.nodes[0].name
        samples = [one for one in self.records if isinstance(one, Sample)]
        counts = [one.objects for one in self.records if isinstance(one, Counted)]
        p99 = [one.values["p99"] for one in samples if one.values.get("p99")]
        faults = [one.how for one in self.records if isinstance(one, Happened)]
        return {
            "slopes_an_hour": slopes([one for one in samples if one.who == first]),
            "grown": grown(counts[0], counts[-1]),
            "p99_ms_median": sorted(p99)[len(p99) // 2] if p99 else None,
            "faults": {how: faults.count(how) for how in sorted(set(faults))},
            "samples": len(samples),
        }


def main(arguments: Sequence[str]) -> int:
    """Soak, and say what it came to; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    parser.add_argument("--hours", type=float, default=2.0)
    parser.add_argument("--rate", type=float, default=8.0, help="messages a second, in all")
    parser.add_argument("--seed", type=int, default=SystemRandom().randrange(2**32))
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--json", action="store_true", help="one JSON object instead of lines")
    chosen = parser.parse_args(arguments)
    leave_on_sigterm()
    chosen.out.parent.mkdir(parents=True, exist_ok=True)
    print(f"seed {chosen.seed}, into {chosen.out}", file=sys.stderr, flush=True)
    with (
        TemporaryDirectory(prefix="ivor-soak-") as root,
        staged(Path(root), chosen.rate) as stage,
        chosen.out.open("wb") as out,
    ):
        soak = Soak(stage, chosen.seed, out)
        soak.run(chosen.hours * 3600)
        soak.faults.heal()
        converged = stage.settle(SETTLE_SECONDS_MAX)
        entries = stage.entries()
        figures = {
            "hours": round(chosen.hours, 3),
            "seed": chosen.seed,
            "converged": converged,
            "entries": entries,
        } | soak.figures()
    if chosen.json:
        print(json.dumps({"v": 1, "what": "soak", **figures}))
    else:
        for name, value in figures.items():
            print(f"{name:16}{value}")
    return 0 if converged else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
