"""How long the machines run: moderately in a test, for minutes in `make attack`.

IVOR_ATTACK_MINUTES says how long each machine goes on beyond its first round; each round draws new
examples. What was run is printed, and written to build/attack.jsonl.
"""

import json
import os
import time
from pathlib import Path
from unittest import mock

from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, run_state_machine_as_test

MINUTES = float(os.environ.get("IVOR_ATTACK_MINUTES", "0"))
REPORT = Path(__file__).parents[2] / "build" / "attack.jsonl"
EXAMPLES_SHARE = 5  # a machine's example is as dear as many of an ordinary property
STEPS = 25


def attack(machine: type[RuleBasedStateMachine], share: int = 1, steps: int = STEPS) -> None:
    """Run a machine. share: divides the number of examples, for machines whose steps are dear."""
    examples = max(settings().max_examples // EXAMPLES_SHARE // share, 1)
    chosen = settings(max_examples=examples, stateful_step_count=steps)
    made = 0
    began = machine.__init__

    def count(self: RuleBasedStateMachine) -> None:
        nonlocal made
        made += 1
        began(self)

    start = time.monotonic()
    with mock.patch.object(machine, "__init__", count):
        run_state_machine_as_test(machine, settings=chosen)
        while time.monotonic() < start + MINUTES * 60:
            run_state_machine_as_test(machine, settings=chosen)
    if MINUTES:
        said = {"machine": machine.__name__, "examples": made, "steps_max": steps}
        line = json.dumps(said | {"seconds": round(time.monotonic() - start)})
        REPORT.parent.mkdir(exist_ok=True)
        with REPORT.open("a") as report:
            print(line, file=report)
