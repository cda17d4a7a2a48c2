"""GETFILE and the wire format: whole, byte by byte, with a tail, and whatever hypothesis thinks of."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from harness.protocol import getfile, gios, wire
from harness.protocol.dialects import DIALECTS

REPLIES = [
    (getfile.OK_HEADER % 0, getfile.Reply("OK", 0, 16)),
    (getfile.OK_HEADER % (2**64 - 1), getfile.Reply("OK", 2**64 - 1, 35)),
    *((getfile.refusal_header(status), getfile.Reply(status, 0, 12 + len(status))) for status in getfile.REFUSALS),
]
MALFORMED_REQUESTS = [
    b"GET / HTTP/1.1\r\n",
    b"getfile GET /x\r\n\r\n",
    b"GETFILE  GET /x\r\n\r\n",
    b"GETFILE GET x\r\n\r\n",
    b"GETFILE GET \r\n\r\n",
    b"GETFILE GET /a b\r\n\r\n",
    b"GETFILE GET /a\0b\r\n\r\n",
    b"GETFILE GET /a\x7f\r\n\r\n",
    b"GETFILE GET /a\nb",
    b"GETFILE GET /a\n\n",
    b"GETFILE GET /\xff\xfe\r\n\r\n",
    b"GETFILE GET /" + b"a" * getfile.HEADER_LIMIT,
    b"GETFILE GET /" + b"a" * (getfile.HEADER_LIMIT - 16) + b"\r\n\r\n",
]
MALFORMED_REPLIES = [
    b"HTTP/1.1 200 OK\r\n",
    b"GETFILE OK\r\n\r\n",
    b"GETFILE OK -1\r\n\r\n",
    b"GETFILE OK 01\r\n\r\n",
    b"GETFILE OK 18446744073709551616\r\n\r\n",
    b"GETFILE OK 1 \r\n\r\n",
    b"GETFILE NOPE\r\n\r\n",
]
paths = st.text(st.characters(blacklist_categories=["Cs"], min_codepoint=0x21).filter(lambda c: c != "\x7f")).map(
    lambda text: "/" + text
)


@given(paths, st.binary(max_size=20))
def test_a_request_is_read_back_in_any_pieces_and_what_follows_it_is_not_looked_at(path, tail):
    request = getfile.encode_request(path)
    for size in range(len(request)):
        assert getfile.parse_request(request[:size]) is None
    assert getfile.parse_request(request) == getfile.parse_request(request + tail) == path.encode()


@pytest.mark.parametrize("data", MALFORMED_REQUESTS)
def test_a_malformed_request_is_refused(data):
    with pytest.raises(getfile.Malformed):
        getfile.parse_request(data)


def test_a_header_of_exactly_the_limit_is_accepted():
    path = b"/" + b"a" * (getfile.HEADER_LIMIT - 17)
    request = b"GETFILE GET " + path + b"\r\n\r\n"
    assert len(request) == getfile.HEADER_LIMIT
    assert getfile.parse_request(request) == path


@given(st.binary(max_size=200))
def test_no_bytes_make_the_parsers_fail_otherwise_than_by_refusing(data):
    for parse in (getfile.parse_request, getfile.parse_reply):
        try:
            parse(data)
        except getfile.Malformed:
            pass


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_a_request_once_refused_is_refused_whatever_follows(data, tail):
    data = b"GETFILE GET /" + data
    try:
        getfile.parse_request(data)
    except getfile.Malformed:
        with pytest.raises(getfile.Malformed):
            getfile.parse_request(data + tail)


@pytest.mark.parametrize(("data", "reply"), REPLIES)
def test_a_reply_is_read_back_in_any_pieces_and_content_is_not_looked_at(data, reply):
    for size in range(len(data)):
        assert getfile.parse_reply(data[:size]) is None
    assert getfile.parse_reply(data) == getfile.parse_reply(data + b"\r\n\r\ncontent") == reply


@pytest.mark.parametrize("data", MALFORMED_REPLIES)
def test_a_malformed_reply_is_refused(data):
    with pytest.raises(getfile.Malformed):
        getfile.parse_reply(data)


GIOS_REPLIES = [
    (b"GETFILE OK 0 ", getfile.Reply("OK", 0, 13)),
    (b"GETFILE OK 18446744073709551615 ", getfile.Reply("OK", 2**64 - 1, 32)),
    (b"GETFILE FILE_NOT_FOUND 0\n", getfile.Reply("FILE_NOT_FOUND", 0, 25)),
    (b"GETFILE ERROR 0\n", getfile.Reply("ERROR", 0, 16)),
]
MALFORMED_GIOS_REQUESTS = [
    b"\n",
    b"GET / HTTP/1.1\r\n",
    b"GETFILE  GET /x\r\n\r\n",
    b"GETFILE PUT /x\n",
    b"GETFILE GET x\n",
    b"GETFILE GET\n",
    b"GETFILE GET \r\n",
    b"GETFILE GET /a b\n",
    b"GETFILE GET /a ",
    b"GETFILE GET /a\0b\n",
    b"GETFILE GET /a\rb",
    b"GETFILE GET /\xff\xfe\n",
    b"GETFILE GET /" + b"a" * 114,
    b"GETFILE GET /" + b"a" * 114 + b"\n",
]
MALFORMED_GIOS_REPLIES = [
    b"HTTP/1.1 200 OK\r\n",
    b"GETFILE OK 1\r\n\r\n",
    b"GETFILE OK  1 ",
    b"GETFILE OK 01 ",
    b"GETFILE OK -1 ",
    b"GETFILE OK 18446744073709551616 ",
    b"GETFILE ERROR\r\n\r\n",
    b"GETFILE ERROR 1\n",
    b"GETFILE INVALID 0\n",
]
line_ends = st.sampled_from([b"\n", b"\r\n", b"\r\n\r\n", b"\n\n"])
words = st.sampled_from(["GETFILE GET ", "getfile get ", "GetFile gEt "])
short_paths = paths.filter(lambda path: len(path.encode()) <= 110)


@given(words, short_paths, line_ends, st.binary(max_size=200))
def test_a_gios_request_in_any_case_and_pieces_ends_with_its_first_line_end_and_a_tail_says_nothing(
    word, path, line_end, tail
):
    request = word.encode() + path.encode() + line_end
    first = request.index(b"\n") + 1
    for size in range(first):
        assert gios.parse_request(request[:size]) is None
    for size in range(first, len(request) + 1):
        assert gios.parse_request(request[:size]) == path.encode()
    assert gios.parse_request(request + tail) == path.encode()


@given(short_paths)
def test_a_gios_client_sends_what_the_server_half_reads(path):
    request = gios.encode_request(path)
    assert request == b"GETFILE GET " + path.encode() + b"\r\n\r\n"
    assert gios.parse_request(request) == path.encode()


@pytest.mark.parametrize("path", ["x", "", "/a b", "/a\nb", "/a\n", "/a\r", "/" + "a" * 111])
def test_a_gios_client_refuses_a_path_that_cannot_be_asked_for(path):
    with pytest.raises(getfile.Malformed):
        gios.encode_request(path)


def test_a_gios_request_is_at_most_127_bytes_with_its_line_end():
    path = b"/" + b"a" * 113
    assert len(b"GETFILE GET " + path + b"\n") == gios.HEADER_LIMIT
    assert gios.parse_request(b"GETFILE GET " + path + b"\n") == path
    assert gios.parse_request(b"GETFILE GET " + path) is None


@pytest.mark.parametrize("data", MALFORMED_GIOS_REQUESTS)
def test_a_malformed_gios_request_is_refused(data):
    with pytest.raises(getfile.Malformed):
        gios.parse_request(data)


@pytest.mark.parametrize(("data", "reply"), GIOS_REPLIES)
def test_a_gios_reply_is_read_back_in_any_pieces_and_content_is_not_looked_at(data, reply):
    for size in range(len(data)):
        assert gios.parse_reply(data[:size]) is None
    for tail in (b"", b" ", b"0", b"\n", b"content"):
        assert gios.parse_reply(data + tail) == reply


@pytest.mark.parametrize("data", MALFORMED_GIOS_REPLIES)
def test_a_malformed_gios_reply_is_refused(data):
    with pytest.raises(getfile.Malformed):
        gios.parse_reply(data)


@given(st.integers(0, 2**64 - 1), st.binary(max_size=20))
def test_every_length_is_read_back_in_both_dialects_with_content_behind_it(length, content):
    for dialect in DIALECTS.values():
        header = dialect.OK_HEADER % length
        assert dialect.parse_reply(header + content) == getfile.Reply("OK", length, len(header))


def test_the_replies_of_gios_are_these_bytes():
    assert gios.OK_HEADER % 1024 == b"GETFILE OK 1024 "
    assert gios.refusal_header(getfile.FILE_NOT_FOUND) == b"GETFILE FILE_NOT_FOUND 0\n"
    assert gios.refusal_header(getfile.ERROR) == gios.refusal_header(getfile.INVALID) == b"GETFILE ERROR 0\n"


@given(st.binary(max_size=140))
def test_no_bytes_make_the_gios_parsers_fail_otherwise_than_by_refusing(data):
    for parse in (gios.parse_request, gios.parse_reply):
        try:
            parse(data)
        except getfile.Malformed:
            pass


@given(st.binary(max_size=130), st.binary(max_size=60))
def test_a_gios_request_once_refused_is_refused_whatever_follows(data, tail):
    data = b"GETFILE GET /" + data
    try:
        gios.parse_request(data)
    except getfile.Malformed:
        with pytest.raises(getfile.Malformed):
            gios.parse_request(data + tail)


@pytest.mark.parametrize("dialect", [getfile, gios])
@given(st.text(st.characters(min_codepoint=0x1F, max_codepoint=0x80), max_size=120), st.sampled_from(["", "\r\n", "x"]))
def test_what_the_pattern_of_plain_requests_matches_is_parsed_to_the_same_path(dialect, path, tail):
    request = f"GETFILE GET /{path}\r\n\r\n{tail}".encode()
    if match := dialect.PLAIN.fullmatch(request):
        assert dialect.parse_request(request) == match[1]


@pytest.mark.parametrize("dialect", [getfile, gios])
@given(st.integers(0, 2**65), st.binary(max_size=8))
def test_what_the_pattern_of_headers_with_content_matches_is_parsed_to_the_same_length(dialect, length, content):
    reply = dialect.OK_HEADER % length + content
    if match := dialect.OK_REPLY.match(reply):
        assert dialect.parse_reply(reply) == (getfile.OK, int(match[1]), match.end())
    else:
        assert not 0 < length < 10**19


@pytest.mark.parametrize("dialect", [getfile, gios])
def test_a_plain_request_is_no_longer_than_a_request_may_be(dialect):
    longest = dialect.encode_request("/" + "x" * (dialect.HEADER_LIMIT - 17))
    assert dialect.PLAIN.fullmatch(longest)[1] == dialect.parse_request(longest)
    assert not dialect.PLAIN.fullmatch(longest.replace(b"/", b"/x"))


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1), st.binary(max_size=452), st.binary(max_size=40))
def test_a_command_is_read_back(request_id, lane, path, name):
    record = wire.encode_command(request_id, lane, path, name)
    assert len(record) == wire.COMMAND_BYTES
    assert wire.decode_command(record) == (request_id, lane, path)
    assert wire.lane_name(record) == name


def test_a_path_too_long_for_a_command_is_refused_with_the_room_there_is():
    with pytest.raises(ValueError, match="room for 488"):
        wire.encode_command(1, 1, b"/" * 489, b"lane")


@given(st.binary(max_size=600))
def test_no_bytes_make_the_command_decoder_fail_otherwise_than_by_refusing(record):
    try:
        wire.decode_command(record)
    except ValueError:
        pass


def test_a_head_is_read_back_and_one_that_cannot_be_is_refused():
    head = wire.encode_head(7, wire.STATUS_OK, 2**64 - 1)
    assert len(head) == wire.HEAD_BYTES
    assert wire.decode_head(head + b"content") == (7, wire.STATUS_OK, 2**64 - 1)
    for status, length in ((3, 0), (wire.STATUS_ERROR, 1)):
        with pytest.raises(ValueError, match="not the head"):
            wire.decode_head(wire.encode_head(7, status, length))
