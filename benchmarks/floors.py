"""Are the floors floors? Live blocks on one core: each real transport beside the floor of its shape.

    python benchmarks/floors.py --budget 30s

Commands over a lane, then lanes and the pipeline over all data transports that work here. Prints how many microseconds
each takes above its floor. Exit code 1: one is faster than its floor, by an interval that holds for all. Or there
is no interval, for want of blocks: give it more time, or choose one study.
"""

import argparse
import json
import subprocess
import sys
import tempfile

from harness import registry

ONE = "proxy_processes: 1, cache_processes: 1, placement: same-core, warmup: 20ms"
STUDIES = {
    "commands": "factors: {command: [COMMAND]}\n"
    f"settings: {{scope: lane, data: 'null', files: 64, lanes: 1, proxy_threads: 1, cache_threads: 1, {ONE}}}\n",
    "lanes": "factors: {data: [DATA], files: [64, 100KiB, 3MiB]}\n"
    f"settings: {{scope: lane, command: 'null', lanes: 1, proxy_threads: 1, cache_threads: 1, {ONE}}}\n",
    "pipeline": "factors: {data: [DATA], files: [1KiB, 100KiB, 3MiB]}\n"
    f"settings: {{command: 'null', lanes: 4, clients: 4, client_processes: 1, {ONE}}}\n",
}


def main() -> int:
    """Measure, and print a line for each transport. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--budget", default="30s", help="of each of the studies (%(default)s)")
    parser.add_argument("--only", choices=STUDIES, default=None)
    args = parser.parse_args()
    wrong = [said for name in ([args.only] if args.only else STUDIES) for said in not_above(name, args.budget)]
    print("\n".join(wrong) or "no transport is faster than the floor of its shape")
    return bool(wrong)


def not_above(name: str, budget: str) -> list[str]:
    """A line for each transport of a study that is faster than its floor, or of which that cannot be said."""
    found = registry.installed()
    text = STUDIES[name]
    for kind, transports in (("COMMAND", found.command), ("DATA", found.data)):
        text = text.replace(kind, ", ".join(f"'{one}'" for one in sorted(transports)))
    with tempfile.TemporaryDirectory() as directory:
        with open(f"{directory}/floors.yaml", "w") as file:
            file.write(text)
        harness = [sys.executable, "-m", "harness"]
        run = [*harness, "run", f"{directory}/floors.yaml", "--budget", budget, "--beside", "-o", f"{directory}/out"]
        subprocess.run(run, check=False, stdout=subprocess.DEVNULL)  # a transport that is refused here fails it
        shown = subprocess.run([*harness, "show", "--json", f"{directory}/out"], check=True, capture_output=True)
    wrong = []
    for context in json.loads(shown.stdout)["contexts"]:
        for cell in context["cells"]:
            if above := cell["above_floor"]:
                one = above["difference_us"]
                ends = "no interval" if one["low"] is None else f"{one['low']:.2f} to {one['high']:.2f}"
                line = (
                    f"{name}, {context['label']}: {cell['label']} {one['value']:+.2f} us ({ends}) to {above['floor']}"
                )
                print(line)
                if one["high"] is None:
                    wrong.append(f"too few blocks to tell: {line}")
                elif one["high"] < 0:
                    wrong.append(f"FASTER THAN ITS FLOOR: {line}")
    return wrong


if __name__ == "__main__":
    sys.exit(main())
