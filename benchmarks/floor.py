"""What the pipeline costs above its own floor, in one interleaved run: `make bench`.

The floor is a proxy that answers with sendfile(2) by itself, no cache. Every figure is a median over the rounds;
`of floor` is the median of the ratios within the rounds, so what disturbs the machine falls out of it.
"""

import argparse
import sys
from statistics import median

from harness import results
from harness.factors import Spec
from harness.measure import apart
from harness.units import show_size

SIZES = (1 << 10, 100 << 10, 3 << 20)
FLOOR = "direct"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", nargs="+", default=["posix_shm", "sendfile", "fifo", "null"], metavar="TRANSPORT")
    parser.add_argument("--command", default="posix_mq", metavar="TRANSPORT")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=0.5)
    args = parser.parse_args()
    print(f"{'':8} {'':24} {'requests/s':>10} {'of floor':>8} {'MB/s':>7} {'CPU us/request':>15} {'of it user':>10}")
    for file_size in SIZES:
        rows: dict[str, list[results.Trial]] = {}
        for number in range(args.rounds):
            for data in (FLOOR, *args.data):
                spec = Spec(
                    source="direct" if data == FLOOR else "cache",
                    command=args.command,
                    data=Spec.data if data == FLOOR else data,
                    files=str(file_size),
                    seconds=args.seconds,
                )
                row = apart.run(spec, results.Trial(experiment="floor", trial=number))
                if row.status != "ok":
                    print(f"{data}: {row.reason}", file=sys.stderr)
                    return 1
                rows.setdefault(data, []).append(row)
        for data, some in rows.items():
            of_floor = median(
                row.requests_per_s / floor.requests_per_s for row, floor in zip(some, rows[FLOOR], strict=True)
            )
            user = median((row.proxy_user_s + row.cache_user_s) / row.requests_ended * 1e6 for row in some)
            print(
                f"{show_size(file_size):>8} {data:24} "
                f"{median(row.requests_per_s for row in some):10,.0f} {of_floor:8.2f} "
                f"{median(row.content_bytes_per_s for row in some) / 1e6:7,.0f} "
                f"{median(row.cpu_us_per_request for row in some):15.1f} {user:10.1f}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
