"""The drop-in programs, as a course's scripts start them: console scripts, the course's options, nothing of ours."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.clients import Connection
from support.programs import eventually

SCRIPTS = Path(sys.executable).parent


class Course:
    """Starts the drop-in programs in a directory with the files of `locals.txt`, which it also writes."""

    def __init__(self, pipeline):
        self.pipeline = pipeline
        self.directory = pipeline.directory
        self.contents = {"/courses/a": os.urandom(300_000), "/courses/deep/b": b"content", "/courses/empty": b""}
        with open(self.directory / "locals.txt", "w") as catalogue:
            for key, content in self.contents.items():
                name = key.replace("/", "_")
                pipeline.write(name, content)
                catalogue.write(f"{key} files/{name}\n")

    def start(self, program, *arguments):
        return self.pipeline.start(*arguments, command=[str(SCRIPTS / program)], cwd=self.directory)

    def cache(self, *arguments):
        program = self.start("simplecached", *arguments)
        assert program.line().startswith("simplecached: ready")
        return program

    def proxy(self, *arguments):
        program = self.start("webproxy", "-p", 0, *arguments)
        program.port = int(program.line().split()[3].rstrip(",").rpartition(":")[2])
        return program

    def download(self, proxy, *arguments, paths=None):
        """Run gfclient_download to its end, in a directory of its own: (exit code, output, directory)."""
        there = self.directory / f"kept-{time.monotonic_ns()}"
        there.mkdir()
        (there / "workload.txt").write_text("".join(f"{path}\n" for path in paths or self.contents))
        program = self.pipeline.start(
            "-p", proxy.port, *arguments, command=[str(SCRIPTS / "gfclient_download")], cwd=there
        )
        output = program.process.stdout.read().decode()
        return program.wait(60), output + program.errors, there

    def check(self, proxy, *arguments):
        """Download all files, and compare each."""
        code, output, there = self.download(proxy, *arguments)
        assert code == 0, output
        for path, content in self.contents.items():
            assert (there / path[1:]).read_bytes() == content


@pytest.fixture
def course(pipeline):
    return Course(pipeline)


def get(port, path):
    with Connection(port) as connection:
        return connection.send(f"GETFILE GET {path}\r\n\r\n".encode()).rest()


def test_files_are_kept_below_the_working_directory_under_their_paths_and_each_is_reported(course):
    course.cache()
    proxy = course.proxy()
    code, output, there = course.download(proxy, "-t", 3, "-r", 8, paths=[*course.contents, "/courses/missing"])
    assert code == 0
    for path, content in course.contents.items():
        report = f"Requesting 127.0.0.1{path}\nStatus: OK\nReceived {len(content)} of {len(content)} bytes\n"
        assert output.count(report) == 2
        assert (there / path[1:]).read_bytes() == content
    assert output.count("Requesting 127.0.0.1/courses/missing\nStatus: FILE_NOT_FOUND\nReceived 0 of 0 bytes\n") == 2
    files = sorted(str(file.relative_to(there)) for file in there.rglob("*") if file.is_file())
    assert files == ["courses/a", "courses/deep/b", "courses/empty", "workload.txt"]


def test_the_options_of_the_course_are_taken_as_its_scripts_write_them(course):
    course.cache("-c", "locals.txt", "-t 8", "-d", "0")
    proxy = course.proxy("--segment-count", 5, "--segment-size=4096", "--thread-count=7", "-t 6")
    course.check(proxy, "-s", "127.0.0.1", "-t 4", "-w", "workload.txt")
    with_server = course.proxy("-n", 2, "-s", "https://ignored.example")
    assert "-n or -z means that files come from a cache: -s is ignored" in with_server.errors
    course.check(with_server)
    for program in ("webproxy", "simplecached", "gfclient_download"):
        shown = subprocess.run([SCRIPTS / program, "-h"], capture_output=True, text=True, timeout=20, check=True).stdout
        assert shown.startswith(f"usage: {program} ")
        assert program == "simplecached" or "25496" in shown


@pytest.mark.parametrize(
    "options",
    [["-z", 822], ["-z", 64 << 20], ["-t", 420], ["-n", 1000], ["-t", 1, "-n", 1], ["-t", 420, "-n", 1000, "-z", 822]],
)
def test_the_smallest_and_largest_numbers_work(course, options):
    course.cache("-t", 1)
    course.check(course.proxy(*options), "-t", 100, "-r", 300)


def test_a_cache_of_420_workers_works(course):
    course.cache("-t", 420)
    course.check(course.proxy("-t", 100), "-t", 100, "-r", 300)


@pytest.mark.parametrize(
    ("command", "code", "message"),
    [
        ("webproxy -z 821", 2, "webproxy: argument -z/--segment-size: 821 is not from 822 to 67108864"),
        ("webproxy -z 67108865", 2, "67108865 is not from 822 to 67108864"),
        ("webproxy -t 421", 2, "webproxy: argument -t/--thread-count: 421 is not from 1 to 420"),
        ("webproxy -t 0", 2, "0 is not from 1 to 420"),
        ("webproxy -n 1001", 2, "webproxy: argument -n/--segment-count: 1001 is not from 1 to 1000"),
        ("webproxy -n many", 2, "'many' is not a whole number"),
        (
            "webproxy -z 67108864 -n 1000 -t 420",
            2,
            "420 segments of 67108864 bytes do not fit into the free memory: use fewer or smaller ones",
        ),
        ("webproxy -p 65536", 2, "65536 is not from 0 to 65535"),
        ("simplecached -t 421", 2, "simplecached: argument -t/--nthreads: 421 is not from 1 to 420"),
        ("simplecached -d 2500001", 2, "2500001 is not from 0 to 2500000"),
        ("simplecached -c nowhere", 1, "simplecached: nowhere: no such file or directory"),
        ("gfclient_download -w nowhere", 1, "gfclient_download: nowhere: no such file or directory"),
        ("gfclient_download -r 0", 2, "0 is not from 1 to 10000000"),
    ],
)
def test_what_goes_beyond_is_refused_in_one_line(course, command, code, message):
    name, *arguments = command.split()
    program = course.start(name, *arguments)
    assert program.wait() == code
    assert message in program.errors
    assert len(program.errors.splitlines()) == 1


@pytest.mark.parametrize("first", ["webproxy", "simplecached"])
def test_the_two_programs_start_in_either_order(course, first):
    if first == "simplecached":
        course.cache()
        proxy = course.proxy()
    else:
        proxy = course.proxy()
        with Connection(proxy.port) as early:  # it waits for a cache as for any other peer
            early.send(b"GETFILE GET /courses/deep/b\n")
            course.cache()
            assert early.rest() == b"GETFILE OK 7 content"
    course.check(proxy)


def test_requests_fail_while_the_cache_is_gone_and_go_on_when_it_is_back(course):
    proxy = course.proxy("--timeout", 1)
    for number in (signal.SIGKILL, signal.SIGTERM):
        cache = course.cache()
        course.check(proxy)
        if number == signal.SIGKILL:
            for pid in (cache.pid, *cache.children()):
                os.kill(pid, number)
            cache.wait()
        else:
            assert cache.stop(number) == 0
        begun = time.monotonic()
        assert get(proxy.port, "/courses/a") == b"GETFILE ERROR 0\n"
        assert time.monotonic() - begun < 4.5
        code, output, _ = course.download(proxy, paths=["/courses/a"])
        assert (code, "Status: ERROR\nReceived 0 of 0 bytes" in output) == (0, True)
    course.cache()
    course.check(proxy)


def test_two_proxies_share_one_cache(course):
    course.cache()
    one, other = course.proxy("-n", 3), course.proxy("-n", 4, "-z", 1024)
    clients = [
        course.pipeline.start(
            "-p",
            proxy.port,
            "-r",
            200,
            "-t",
            16,
            "-w",
            course.directory / "workload.txt",
            command=[str(SCRIPTS / "gfclient_download")],
            cwd=there,
        )
        for proxy, there in ((one, make(course, "one")), (other, make(course, "other")))
    ]
    for client, name in zip(clients, ("one", "other"), strict=True):
        assert client.process.stdout.read().count(b"Status: OK") == 200
        assert client.wait() == 0
        for path, content in course.contents.items():
            assert (course.directory / name / path[1:]).read_bytes() == content
    assert one.stop() == 0
    course.check(other)


def make(course, name):
    (course.directory / name).mkdir()
    (course.directory / "workload.txt").write_text("\n".join(course.contents))
    return course.directory / name


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_them_soon_and_nothing_is_left(course, base, number):
    cache, proxy = course.cache(), course.proxy("-n", 40)
    course.check(proxy)
    assert [name for name in os.listdir("/dev/shm") if re.search(rf"th-{os.getuid()}-default-proxy-{proxy.pid}", name)]
    with Connection(proxy.port), Connection(proxy.port) as waiting:
        get(proxy.port, "/courses/a")
        waiting.send(b"GETFILE GET /courses/a\n").socket.recv(10)
        for program in (proxy, cache):
            begun = time.monotonic()
            assert program.stop(number) == 0
            assert time.monotonic() - begun < 4
            assert program.errors == ""
    assert not os.path.exists(base)
    assert not [name for name in os.listdir("/dev/shm") if f"default-proxy-{proxy.pid}" in name]


def test_with_a_server_alone_files_come_from_there(course):
    origin = course.pipeline.start("origin", "-c", course.directory / "locals.txt", "-p", 0, cwd=course.directory)
    url = origin.line().split()[3].rstrip(",")
    proxy = course.proxy("--server", url, "-t", 5)
    course.check(proxy, "-r", 60)
    code, output, _ = course.download(proxy, paths=["/missing"])
    assert (code, "Status: FILE_NOT_FOUND" in output) == (0, True)
    without_scheme = course.proxy("-s", url.removeprefix("http://"))
    course.check(without_scheme)
    assert without_scheme.stop(signal.SIGINT) == 0
    assert without_scheme.errors == ""


def test_an_interrupted_download_leaves_no_half_written_file(course):
    slow = course.proxy("--timeout", 20)  # there is no cache: the requests wait
    there = make(course, "kept")
    client = course.pipeline.start(
        "-p",
        slow.port,
        "-w",
        course.directory / "workload.txt",
        command=[str(SCRIPTS / "gfclient_download")],
        cwd=there,
    )
    assert eventually(lambda: len(os.listdir(f"/proc/{client.pid}/fd")) > 5)
    assert client.stop(signal.SIGINT) == 130
    assert [file for file in there.rglob("*") if file.is_file()] == []


@pytest.mark.serial
@pytest.mark.parametrize(
    "start", [("simplecached",), ("webproxy", "-p", 0), ("webproxy", "-p", 0, "-s", "http://127.0.0.1:1")]
)
def test_a_program_started_this_way_is_ready_within_250_ms(course, start):
    def seconds():
        """From the start to the greeting, without the time for which other work had the CPUs."""
        begun = time.monotonic()
        started = course.start(*start)
        started.line()
        passed = time.monotonic() - begun
        # The second field: ns ready to run but without a CPU, Documentation/scheduler/sched-stats.rst of the kernel.
        fields = [Path(f"/proc/{pid}/schedstat").read_text().split() for pid in (started.pid, *started.children())]
        assert started.stop() == 0
        return passed - sum(int(waited) for _, waited, _ in fields) / 1e9

    assert any(seconds() < 0.25 for _ in range(20))  # other work also slows the CPUs down
