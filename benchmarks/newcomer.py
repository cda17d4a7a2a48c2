"""How far a stranger is from a row in `harness ipc` for a transport of their own: commands are timed, typing is not.

    .venv/bin/python benchmarks/newcomer.py

It writes a package with `harness new-transport`, installs it into a new virtual environment that sees what this one
has, checks it, and measures it beside built-in transports. Then it counts the lines of the smallest packages: those of
`plugins/`, and the one just written.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
NAME = "mine"


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="newcomer-") as directory:
        environment, package = f"{directory}/venv", f"{directory}/harness-{NAME}"
        subprocess.run([sys.executable, "-m", "venv", "--system-site-packages", environment], check=True)
        for site in Path(environment).glob("lib/python*/site-packages"):  # what is installed beside this Python
            (site / "here.pth").write_text("\n".join(one for one in sys.path if "site-packages" in one) + f"\n{ROOT}\n")
        python = f"{environment}/bin/python"
        harness = [python, "-m", "harness"]
        install = [python, "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        steps = (
            ("harness new-transport", [*harness, "new-transport", NAME, package]),
            ("pip install -e", [*install, "--no-deps", "-e", package]),
            ("harness check", [*harness, "check", NAME]),
            (
                "harness ipc --budget 10s",
                [*harness, "ipc", "--only", f"unix,posix_shm,{NAME}", "--budget", "10s", "-o", f"{directory}/out"],
            ),
        )
        whole = 0.0
        for title, command in steps:
            begun = time.monotonic()
            done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False, timeout=300)
            whole += (took := time.monotonic() - begun)
            print(f"{took:6.1f} s  {title}", flush=True)
            if done.returncode:
                print(done.stdout + done.stderr, file=sys.stderr)
                return 1
        assert any(line.startswith(f"{NAME} ") for line in done.stdout.splitlines()), done.stdout
        print(f"{whole:6.1f} s  in all: `{NAME}` has its row in each table of `harness ipc`\n")
        print("lines of a package: module + pyproject.toml (without blank ones)")
        packages = [Path(package), *sorted((ROOT / "plugins").iterdir())]
        for lines, name in sorted((_lines(one), one.name) for one in packages):
            print(f"{sum(lines):5}  {name}: {lines[0]} + {lines[1]}")
    return 0


def _lines(package: Path) -> tuple[int, int]:
    [module] = package.glob("harness_*.py")
    return _count(module), _count(package / "pyproject.toml")


def _count(file: Path) -> int:
    return sum(bool(line.strip()) for line in file.read_text().splitlines())


if __name__ == "__main__":
    os.environ.pop("PYTHONPATH", None)
    sys.exit(main())
