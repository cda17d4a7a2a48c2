"""The programs as commands: arguments, sources, one-line errors, exit codes, what they import."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import urllib.request

import pytest
from support.clients import Connection, get
from support.programs import eventually, open_files
from support.transports import COMMAND, DATA
from support.users import as_an_ordinary_user

from harness import cli, registry
from harness.load import loader
from harness.protocol import getfile

pytestmark = pytest.mark.processes
PROGRAMS = ("simplecached", "webproxy", "gfclient", "lane", "run", "clean")
HEAVY = (
    "asyncio",
    "ctypes",
    "email",
    "hypothesis",
    "numpy",
    "pycurl",
    "pydantic",
    "rich",
    "ruamel.yaml",
    "scipy",
    "unittest",
)


def harness(*arguments, **options):
    command = [sys.executable, "-m", "harness", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)


def test_help_names_every_command_and_every_command_has_help():
    overview = harness("--help")
    assert overview.returncode == 0
    for program in PROGRAMS:
        assert f"  {program} " in overview.stdout
        own = harness(program, "--help")
        assert own.returncode == 0
        assert own.stdout.startswith(f"usage: harness {program}")
    assert harness("--version").stdout.startswith("harness 0.")


@pytest.mark.parametrize("program", ["simplecached", "webproxy", "gfclient", "lane"])
def test_the_programs_of_a_trial_import_nothing_heavy(program):
    check = (
        f"import {cli._COMMANDS[program][0]}, sys; from harness import registry; "
        f"[registry.command_transport(name) for name in {[*COMMAND]}]; "
        f"[registry.data_transport(name) for name in {[*DATA]}]; "
        f"print([name for name in {HEAVY!r} if name in sys.modules])"
    )
    assert subprocess.check_output([sys.executable, "-c", check], text=True) == "[]\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        ([], 2, "usage: harness COMMAND"),
        (["simplecache"], 2, "simplecache: no such command; did you mean simplecached?"),
        (["check", "posix_smh"], 2, "posix_smh: no such transport; did you mean posix_shm?"),
        (["experiment", "check", "/tmp"], 1, "/tmp: is a directory"),
        (["simplecached"], 2, "required: -c"),
        (["simplecached", "-c", "/nowhere"], 1, "/nowhere"),
        (["simplecached", "-c", ".", "-t", "0"], 2, "argument -t: must be 1 or more"),
        (["simplecached", "-c", ".", "--command", "posix_mp"], 2, "did you mean posix_mq?"),
        (["simplecached", "-c", ".", "--name", "../evil"], 2, "use 1 to 32 letters"),
        (["webproxy", "-p", "65536"], 2, "65536 is over 65535"),
        (["webproxy", "-p", "0", "--data", "posix_smh"], 2, "did you mean posix_shm?"),
        (["webproxy", "-p", "0", "--data", "posix_shm:depth=0"], 2, "depth at least 1"),
        (["webproxy", "-p", "0", "-z", "64"], 2, "chunk must be over 64 bytes"),
        (["webproxy", "-p", "0", "-z", "big"], 2, "not a size"),
        (["webproxy", "-p", "0", "-n", "1", "--processes", "2"], 2, "each of the 2 processes needs a lane"),
        (["webproxy", "-p", "0", "--timeout", "0"], 2, "'0' is not over 0 and under 1000000 seconds"),
        (["webproxy", "-p", "0", "--host", "192.0.2.1"], 1, "cannot listen on 192.0.2.1:0"),
        (["gfclient", "-w", "/nowhere", "-r", "1"], 1, "/nowhere"),
        (["run", "/nowhere.yaml"], 1, "/nowhere.yaml"),
        (["clean", "--name", "a/b"], 2, "use 1 to 32 letters"),
    ],
)
def test_bad_input_gets_one_clear_line_and_no_traceback(base, arguments, code, message):
    result = harness(*arguments)
    assert result.returncode == code
    assert message in result.stderr + result.stdout
    assert "Traceback" not in result.stderr


def test_a_file_of_keys_serves_just_these_with_or_without_a_last_newline(pipeline):
    first, second = pipeline.directory / "a file", pipeline.directory / "second"
    first.write_bytes(b"first")
    second.write_bytes(b"second")
    keys = pipeline.directory / "locals.txt"
    for end in ("", "\n"):
        keys.write_text(f"/one {first}\n/two\t{second}{end}")
        cache = pipeline.cache(source=keys)
        proxy = pipeline.proxy()
        assert get(proxy.port, "/one") == b"GETFILE OK 5\r\n\r\nfirst"
        assert get(proxy.port, "/two") == b"GETFILE OK 6\r\n\r\nsecond"
        assert get(proxy.port, "/three") == b"GETFILE FILE_NOT_FOUND\r\n\r\n"
        assert get(proxy.port, str(first).replace(" ", "")) == b"GETFILE FILE_NOT_FOUND\r\n\r\n"
        assert (proxy.stop(), cache.stop()) == (0, 0)


@pytest.mark.parametrize(
    ("lines", "code", "message"),
    [
        ("/one {file}\n/two /nowhere\n", 1, "locals.txt:2: /nowhere: No such file"),
        ("/one {file}\n/one {file}\n", 2, "locals.txt:2: the key /one is there twice"),
        ("/one\n", 2, "locals.txt:1: write `/key path`"),
        ("one {file}\n", 2, "locals.txt:1: write `/key path`"),
        ("/dir /tmp\n", 1, "locals.txt:1: /tmp: not a regular file"),
    ],
)
def test_a_file_of_keys_that_cannot_be_served_whole_refuses_the_start(pipeline, lines, code, message):
    file = pipeline.write("file", b"content")
    (pipeline.directory / "locals.txt").write_text(lines.format(file=pipeline.directory / f"files{file}"))
    program = pipeline.start("simplecached", "-c", pipeline.directory / "locals.txt")
    assert program.wait() == code
    assert message in program.errors
    assert len(program.errors.splitlines()) == 1


def test_files_that_appear_later_are_found_and_each_is_opened_once(pipeline):
    cache = pipeline.cache()
    proxy = pipeline.proxy()
    assert get(proxy.port, "/late") == b"GETFILE FILE_NOT_FOUND\r\n\r\n"
    path = pipeline.write("late", b"here")
    for _ in range(10):
        assert get(proxy.port, path) == b"GETFILE OK 4\r\n\r\nhere"
    (worker,) = cache.children()
    assert open_files(worker).count(str(pipeline.files / "late")) == 1


def test_a_delay_of_each_lookup_is_kept(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache("-d", 200_000)
    _, output = pipeline.client(pipeline.proxy().port, [path], "-r", 2, "-t", 1)
    assert float(output.partition("p50 ")[2].split()[0]) > 200_000


def test_two_caches_at_one_rendezvous_are_refused_and_so_is_another_command_channel(pipeline):
    pipeline.cache()
    second = pipeline.start("simplecached", "-c", pipeline.files)
    assert second.wait() == 1
    assert "another cache runs at rendezvous 'default': stop it, or use another --name" in second.errors
    proxy = pipeline.start("webproxy", "-p", 0, "--command", "fifo")
    assert proxy.wait() == 1
    assert "takes commands over posix_mq, not fifo" in proxy.errors


def test_nohup_is_respected_and_a_signal_ends_a_waiting_proxy_well(pipeline):
    nohup = [*["setsid", "nohup"], sys.executable, "-m", "harness", "simplecached", "-c", str(pipeline.files)]
    with subprocess.Popen(nohup, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as cache:
        cache.stdout.readline()
        cache.send_signal(signal.SIGHUP)
        with pytest.raises(subprocess.TimeoutExpired):
            cache.wait(0.5)
        cache.terminate()
        assert cache.wait(10) == 0
    waiting = pipeline.start("webproxy", "-p", 0)
    assert eventually(lambda: "waiting for a cache" in waiting.errors)
    assert waiting.stop() == 0


def test_paths_with_detours_are_no_files_and_cost_no_descriptors(pipeline):
    path = pipeline.write("file", b"content")
    cache = pipeline.cache()
    proxy = pipeline.proxy()
    assert get(proxy.port, path).endswith(b"content")
    (worker,) = cache.children()
    before = len(open_files(worker))
    for detour in ("/./file", "//file", "/x/../file", "/file/", "/file/."):
        assert get(proxy.port, detour) == b"GETFILE FILE_NOT_FOUND\r\n\r\n"
    assert eventually(lambda: len(open_files(worker)) == before)


def test_names_are_the_owners_alone(pipeline, base):
    pipeline.cache("--command", "fifo")
    proxy = pipeline.proxy("--data", "posix_shm")
    for directory, _, files in os.walk(base):
        assert os.stat(directory).st_mode & 0o777 == 0o700
        for file in files:
            assert os.stat(f"{directory}/{file}").st_mode & 0o077 == 0, file
    ours = [name for name in os.listdir("/dev/shm") if f"th-{os.getuid()}-default-proxy-{proxy.pid}" in name]
    assert len(ours) == 6  # two lanes of memory and two semaphores
    assert all(os.stat(f"/dev/shm/{name}").st_mode & 0o777 == 0o600 for name in ours)


def test_clean_touches_nothing_that_is_not_ours(base):
    thesis = f"{base}/projects/thesis"
    os.makedirs(thesis)
    os.chmod(base, 0o700)
    with open(f"{thesis}/chapter-1", "w") as chapter:
        chapter.write("three years of work")
    result = harness("clean")
    assert (result.returncode, result.stdout) == (0, "nothing to remove\n")
    with open(f"{thesis}/chapter-1") as chapter:
        assert chapter.read() == "three years of work"
    shutil.rmtree(base)


def test_with_json_a_program_says_that_it_is_ready_in_one_line_of_json(pipeline):
    path = pipeline.write("file", b"content")
    cache = pipeline.start("simplecached", "-c", pipeline.files, "--json")
    assert json.loads(cache.line()) == {"ready": "simplecached"}
    proxy = pipeline.start("webproxy", "-p", 0, "--json")
    ready = json.loads(proxy.line())
    assert get(ready["port"], path) == b"GETFILE OK 7\r\n\r\ncontent"
    assert ready == {"ready": "webproxy", "host": "127.0.0.1", "port": ready["port"]}
    origin = pipeline.start("origin", "-c", pipeline.files, "-p", 0, "--json")
    ready = json.loads(origin.line())
    with urllib.request.urlopen(f"{ready['url']}{path}", timeout=20) as reply:
        assert reply.read() == b"content"
    assert ready == {"ready": "origin", "url": ready["url"], "server": "harness origin"}
    for program in (origin, proxy, cache):
        program.process.terminate()
        assert program.process.stdout.read() == b""  # nothing but that line
        assert program.wait() == 0


def test_without_json_a_program_says_in_words_what_it_serves_and_where(pipeline):
    cache = pipeline.start("simplecached", "-c", pipeline.files, "--command", "fifo")
    assert cache.line() == f"simplecached: ready at rendezvous 'default' over {registry.describe(COMMAND['fifo']())}"
    proxy = pipeline.start("webproxy", "-p", 0, "--direct", pipeline.files)
    assert re.fullmatch(rf"webproxy: listening on 127\.0\.0\.1:\d+, serving {pipeline.files} by sendfile", proxy.line())
    origin = pipeline.start("origin", "-c", pipeline.files, "-p", 0)
    greeting = rf"origin: listening on http://127\.0\.0\.1:\d+, serving {pipeline.files} by harness origin"
    assert re.fullmatch(greeting, origin.line())


def test_a_base_directory_that_others_may_enter_is_refused(base):
    os.mkdir(base, 0o755)
    result = harness("clean")
    os.rmdir(base)
    assert result.returncode == 1
    assert "must be yours alone" in result.stderr


# Asks each of the ports forty times, by four threads.
ASK = f"""
import sys
sys.path.insert(0, {os.path.dirname(__file__)!r})
from support.clients import get_all, whole
content = whole(open("files/file", "rb").read())
for port in sys.argv[1:]:
    print("OK", get_all(int(port), ["/file"] * 40, 4).count(content))
"""


@pytest.mark.parametrize("command", COMMAND)
def test_an_ordinary_user_with_default_limits_can_run_every_pair(command):
    script = """
        mkdir files && head -c 100000 /dev/urandom > files/file
        serve() {
            "$@" & programs="$programs $!"
        }
        programs= ports=
        trap 'kill $programs 2> /dev/null || true' EXIT
        serve $HARNESS simplecached -c files -t 2 --command $COMMAND
        for data in $DATA; do
            serve $HARNESS webproxy -p 0 -n 2 -t 4 --data $data > $data.out
        done
        for data in $DATA; do
            for i in $(seq 200); do grep -q listening $data.out && break; sleep 0.1; done
            ports="$ports $(sed 's/.*127.0.0.1:\\([0-9]*\\).*/\\1/' $data.out)"
        done
        $PYTHON - $ports <<< "$ASK"
        kill $programs
        wait
        ! test -e base/transport-harness-$(id -u)
    """
    data = set(DATA) - {"null", "null_sendfile"}
    names = {"COMMAND": command, "DATA": " ".join(data)}
    result = as_an_ordinary_user(script, 220, PYTHON=sys.executable, ASK=ASK, **names)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("OK 40") == len(data)


def test_the_client_takes_the_address_of_a_host_that_answers(pipeline, monkeypatch):
    pipeline.cache()
    port = pipeline.proxy().port
    ipv4 = socket.getaddrinfo("127.0.0.1", port, type=socket.SOCK_STREAM)
    ipv6 = [(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP, "", ("::1", port, 0, 0))]
    for found, family in ((ipv6 + ipv4, socket.AF_INET), (ipv4 + ipv6, socket.AF_INET), (ipv6, socket.AF_INET6)):
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_, found=found, **__: found)
        assert loader.find_target("localhost", port, 5, getfile).family == family


def test_the_client_keeps_files_under_their_paths_whole_and_counts_what_came(pipeline):
    (pipeline.files / "deep").mkdir()
    contents = {pipeline.write(name, os.urandom(size)): size for name, size in (("a", 0), ("deep/b", 3_000_000))}
    pipeline.cache()
    proxy = pipeline.proxy()
    kept = pipeline.directory / "kept"
    code, output = pipeline.client(proxy.port, [*contents, "/missing"], "-r", 9, "-t", 2, "-o", kept)
    assert code == 1
    assert "OK 6  FILE_NOT_FOUND 3  ERROR 0  INVALID 0  short 0  wrong 0  failed 0" in output
    for path in contents:
        assert (kept / path[1:]).read_bytes() == (pipeline.files / path[1:]).read_bytes()
    assert sorted(str(file.relative_to(kept)) for file in kept.rglob("*") if file.is_file()) == ["a", "deep/b"]
    code, output = pipeline.client(proxy.port, list(contents), "-r", 20, "--discard")
    assert code == 0
    assert "OK 20" in output


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (b"GETFILE OK 4\r\n\r\nhere", "OK"),
        (b"GETFILE OK 0\r\n\r\n", "OK"),
        (b"GETFILE FILE_NOT_FOUND\r\n\r\n", "FILE_NOT_FOUND"),
        (b"GETFILE ERROR\r\n\r\n", "ERROR"),
        (b"GETFILE INVALID\r\n\r\n", "INVALID"),
        (b"GETFILE OK 5\r\n\r\nhere", "short"),
        (b"GETFILE OK 3\r\n\r\nhere", "wrong"),
        (b"GETFILE OK 0\r\n\r\nx", "wrong"),
        (b"HTTP/1.1 200 OK\r\n\r\n", "wrong"),
        (b"", "failed"),
        (b"GETFILE O", "failed"),
    ],
)
@pytest.mark.parametrize("sink", ["", "--discard", "-o kept", "--verify files", "--verify files -o kept"])
def test_the_client_tells_replies_apart_in_whole_and_in_pieces(pipeline, reply, kind, sink):
    path = pipeline.write("x", b"" if b" 0\r" in reply else b"here")
    arguments = sink.replace("kept", f"{pipeline.directory}/kept").replace("files", str(pipeline.files)).split()
    listener = socket.create_server(("127.0.0.1", 0))

    def serve():
        for pieces in ([reply], [reply[i : i + 1] for i in range(len(reply))]):
            client, _ = listener.accept()
            with client, contextlib.suppress(OSError):  # the client leaves as soon as it knows: ECONNRESET, ENOTCONN
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                client.recv(4096)
                for piece in pieces:
                    client.sendall(piece)
                client.shutdown(socket.SHUT_WR)
                client.recv(1)

    server = threading.Thread(target=serve)
    with listener:
        server.start()
        code, output = pipeline.client(listener.getsockname()[1], [path], "-r", 2, "-t", 1, *arguments)
        server.join(10)
    assert f"{kind} 2" in output
    assert code == (0 if kind == "OK" else 1)
    kept = pipeline.directory / "kept"
    assert (os.listdir(kept) if kept.exists() else []) == (["x"] if kind == "OK" and "kept" in sink else [])


def test_the_client_finds_wrong_content_and_gives_up_on_a_silent_server(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache()
    proxy = pipeline.proxy()
    other = pipeline.directory / "other"
    other.mkdir()
    (other / "file").write_bytes(b"CONTENT")
    code, output = pipeline.client(proxy.port, [path], "-r", 4, "--verify", other)
    assert (code, "wrong 4" in output) == (1, True)
    (other / "file").write_bytes(b"content and more")
    code, output = pipeline.client(proxy.port, [path], "-r", 4, "--verify", other)
    assert (code, "wrong 4" in output) == (1, True)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        code, output = pipeline.client(listener.getsockname()[1], [path], "-r", 2, "--timeout", 0.3)
        assert (code, "failed 2" in output) == (1, True)
    code, output = pipeline.client(1, [path], "-r", 2)
    assert (code, "failed 2" in output) == (1, True)


def test_a_warm_up_longer_than_the_load_is_no_harm_and_a_bad_one_is_reported(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache()
    proxy = pipeline.proxy()
    code, output = pipeline.client(proxy.port, [path], "-r", 5, "--warmup", 0.3)
    assert (code, "OK 5" in output) == (0, True)
    code, output = pipeline.client(proxy.port, ["/missing"], "-r", 5, "--warmup", 0.1)
    assert code == 1
    assert "warm-up: not every reply was OK: " in output
    assert "FILE_NOT_FOUND" in output


def test_a_client_process_that_is_killed_ends_the_client(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache()
    workload = pipeline.directory / "workload.txt"
    workload.write_text(f"{path}\n")
    client = pipeline.start(
        "gfclient", "-p", pipeline.proxy().port, "-w", workload, "--seconds", 60, "-t", 2, "--processes", 2
    )
    assert eventually(lambda: len(client.children()) == 2)
    for pid in client.children():
        with contextlib.suppress(ProcessLookupError):  # the program ends the others when it sees the first one gone
            os.kill(pid, signal.SIGKILL)
    assert client.wait() == 1
    assert "was ended by SIGKILL before it could" in client.errors


def test_an_interrupted_client_leaves_no_half_written_file(pipeline):
    path = pipeline.write("file", os.urandom(1 << 20))
    pipeline.cache()
    proxy = pipeline.proxy()
    workload = pipeline.directory / "workload.txt"
    workload.write_text(f"{path}\n")
    kept = pipeline.directory / "kept"
    client = pipeline.start(
        "gfclient", "-p", proxy.port, "-w", workload, "--seconds", 60, "--warmup", 0.1, "--gate", "-o", kept
    )
    assert client.wait() == 1  # standard input has ended: no go-ahead will come
    busy = pipeline.start("gfclient", "-p", proxy.port, "-w", workload, "--seconds", 60, "-t", 8, "-o", kept)
    while not kept.exists():
        pass
    assert busy.stop() == 130
    assert [file.name for file in kept.iterdir() if file.name != "file"] == []


@pytest.mark.parametrize(
    ("workload", "arguments", "message"),
    [
        ("/ok\nnot-a-path\n", [], ":2: 'not-a-path'"),
        ("\n\n", [], "no paths in it"),
        ("/../x\n", ["-o", "kept"], "/../x: cannot keep this below kept"),
        ("/x\n", ["--verify", "/nowhere"], "/nowhere/x: no such file to compare with"),
    ],
)
def test_a_bad_workload_is_refused_with_its_line(pipeline, workload, arguments, message):
    file = pipeline.directory / "workload.txt"
    file.write_text(workload)
    client = pipeline.start("gfclient", "-w", file, "-r", 1, *arguments)
    assert client.wait() == 2
    assert message in client.errors
    assert len(client.errors.splitlines()) == 1


def test_a_connection_that_stays_open_after_its_request_is_answered_and_closed(pipeline):
    path = pipeline.write("file", b"content")
    pipeline.cache()
    proxy = pipeline.proxy("-t", 1)
    with Connection(proxy.port) as connection:
        assert connection.send(f"GETFILE GET {path}\r\n\r\n".encode()).rest() == b"GETFILE OK 7\r\n\r\ncontent"
        assert get(proxy.port, path).endswith(b"content")


def test_a_proxy_that_still_waits_for_a_cache_ends_with_standard_input_too(pipeline):
    proxy = pipeline.start("webproxy", "-p", 0, "--wait", 60, "--until-eof")  # whose standard input is at its end
    assert proxy.wait() == 0


@pytest.mark.parametrize("gone_on", [False, True])
def test_a_client_at_a_gate_ends_early_where_the_program_that_holds_the_gate_does(pipeline, gone_on):
    path = pipeline.write("file", b"content")
    pipeline.cache()
    proxy = pipeline.proxy()
    workload = pipeline.directory / "workload.txt"
    workload.write_text(f"{path}\n")
    command = [
        sys.executable,
        "-m",
        "harness",
        "gfclient",
        "-p",
        str(proxy.port),
        "-w",
        str(workload),
        "--seconds",
        "60",
        "--warmup",
        "0.1",
        "--gate",
    ]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, **pipes) as client:
        assert client.stdout.readline() == '{"ready": "gfclient"}\n'
        if gone_on:
            client.stdin.write("go\n")
        client.stdin.close()
        assert client.wait(10) == 1
        assert "standard input ended before" in client.stderr.read()


@pytest.mark.parametrize("arguments", [["--help"], ["docs", "statistics"], ["docs", "no-such-page"]])
def test_a_command_whose_output_nothing_reads_ends_quietly(arguments):
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [sys.executable, "-m", "harness", *arguments],
            stdout=writing,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    finally:
        os.close(writing)
    if arguments[-1] == "no-such-page":  # what has nothing to print says what is wrong, as ever
        assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    else:
        assert (done.returncode, done.stderr) == (141, "")
