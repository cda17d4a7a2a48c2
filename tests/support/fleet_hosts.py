"""Hosts of a fleet that hand back rows without measuring, and the engine that reaches them, in this process."""

import csv
import io
import json
from collections import deque
from dataclasses import fields

from harness import results
from harness.fleet.engine import Answer, Seen

_BLANK = results.Trial(status="ok", requests_per_s=1.0, design="live", rounds=1)


class Host:
    """A host with a disk: rows and slices stay there when a worker ends. cells, rounds: of a block. most: blocks after
    which the host finds that its own study is done."""

    def __init__(self, cells=2, rounds=1, blocks=3):
        self.cells, self.rounds, self.blocks = cells, rounds, blocks
        self.rows, self.slices, self.measured = [], {}, set()
        self.most = blocks
        self.fails = deque()  # what the next parts fail with

    def measure(self, block):
        """Measure a block, unless it is there."""
        if block in self.measured:
            return
        self.measured.add(block)
        for cell in range(1, self.cells + 1):
            trial = (block - 1) * self.cells + cell
            row = results.Trial(**{**vars(_BLANK), "trial": trial, "block": block, "cell": cell, "host": "own"})
            self.rows.append(row)
            lines = [f"{trial},{n},{cell},{n},1.0,{10 + cell},1,1.0,12,0,0,0,0,\n" for n in range(1, self.rounds + 1)]
            self.slices[trial] = "".join(lines)

    def part(self, asked):
        """As harness.fleet.host.part()."""
        if len(self.measured) < self.most:
            self.measure(asked["block"] or len(self.measured) + 1)
        new = self.rows[asked["rows"] :]
        header = ",".join(column.name for column in fields(results.Slice))
        slices = "".join(self.slices[row.trial] for row in new)
        return {
            "rows": len(self.rows),
            "done": len(self.measured) >= self.most,
            "spent": 0.0,
            "widest": None,
            "environment": json.dumps({"experiment": {"name": "study"}}),
            "experiment": "question: ''\n",
            "tables": {results.TRIALS: _csv(new), results.SLICES: f"{header}\n{slices}"},
            "logs": {},
        }


class Engine:
    """hosts: name -> Host. gone, silent: names of hosts that are not there, or say nothing. now: the clock."""

    def __init__(self, hosts):
        self.hosts, self.gone, self.silent, self.sent = hosts, set(), set(), {}
        self.workers = dict.fromkeys(hosts, 0)
        self.revived, self.asked, self.now = [], [], 0.0

    def clock(self):
        return self.now

    def look(self):
        there = self.hosts.keys() - self.gone
        return {name: Seen(f"{name}/{self.workers[name]}", 99.0 * (name in self.silent)) for name in there}

    def send(self, host, command, given):
        assert host not in self.sent, "one thing at a time"
        self.sent[host] = json.loads(given)
        self.asked.append((host, self.sent[host]))

    def answers(self, bound):
        """All hosts that are there answer at once."""
        self.now += 1.0
        at_work = [host for host in self.sent if host not in self.gone and host not in self.silent]
        return [self._answer(host, self.sent.pop(host)) for host in at_work]

    def drop(self, host):
        self.sent.pop(host, None)

    def revive(self, host):
        self.revived.append(host)

    def _answer(self, host, asked):
        if self.hosts[host].fails:
            return Answer(host, 1, b"", f"a line\n{self.hosts[host].fails.popleft()}\n")
        return Answer(host, 0, json.dumps(self.hosts[host].part(asked)).encode(), "")


def _csv(rows):
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(results.COLUMNS)
    values = ([vars(row)[name] for name in results.COLUMNS] for row in rows)
    writer.writerows([int(one) if isinstance(one, bool) else one for one in row] for row in values)
    return text.getvalue()
