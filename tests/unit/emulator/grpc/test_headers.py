"""Header blocks: what is remembered of them is what decoding them again would give."""

from __future__ import annotations

import pytest
from hpack import Decoder, Encoder, HeaderTuple, NeverIndexedHeaderTuple
from hpack.exceptions import HPACKError
from hypothesis import given
from hypothesis import strategies as st

from convotic_emulator.grpc.headers import HeaderDecoder, literals
from tests.support.generated import patient
from tests.unit.emulator.grpc.peer import request_headers

_PATHS = st.sampled_from(["/a.B/C", "/a.B/D", "/e.F/" + "g" * 300])
_MORE = st.dictionaries(
    st.sampled_from(["grpc-timeout", "grpc-encoding", "user-agent", "x-goog-request-params"]),
    st.sampled_from(["1S", "20S", "gzip", "x" * 2000]),
)
_REQUESTS = st.lists(
    st.tuples(_PATHS, _MORE, st.booleans(), st.sampled_from([None, None, None, 100, 4096])),
    min_size=1,
    max_size=40,
)


@patient
@given(requests=_REQUESTS)
def test_a_remembered_block_means_what_it_says(
    requests: list[tuple[str, dict[str, str], bool, int | None]],
) -> None:
    """Against a decoder that remembers nothing, with tables that grow, overflow and are resized."""
    encoder, decoder = Encoder(), HeaderDecoder(64 * 1024)
    for path, more, is_secret, table_size in requests:
        if table_size is not None:
            encoder.header_table_size = table_size
        kind = NeverIndexedHeaderTuple if is_secret else HeaderTuple
        fields = request_headers(path) + list(more.items())

        request = decoder.request(encoder.encode([kind(*field) for field in fields]))

        assert request.path == path
        assert request.encoding == more.get("grpc-encoding", "identity")
        seconds = {"1S": 1.0, "20S": 20.0}
        timeout = more.get("grpc-timeout")
        assert request.timeout_seconds == seconds.get(timeout or "")
        assert request.refused_with == (400 if timeout and timeout not in seconds else 0)


def test_blocks_are_remembered() -> None:
    """The second of two equal ones is not decoded: its request is the same object."""
    encoder, decoder = Encoder(), HeaderDecoder(1000)
    first = [decoder.request(encoder.encode(request_headers("/a.B/C"))) for _ in range(3)]

    assert first[1] is first[2]


def test_a_field_that_was_too_large_for_the_table_is_kept_in_a_larger_one() -> None:
    """Its block is the same, but adds to the table now: every later index was wrong."""
    encoder, decoder = Encoder(), HeaderDecoder(1000)
    fields = request_headers("/a.B/C")
    encoder.header_table_size = 32  # of no field
    for _ in range(2):
        decoder.request(encoder.encode(fields))
    encoder.header_table_size = 4096
    decoder.request(encoder.encode([NeverIndexedHeaderTuple(*field) for field in fields]))

    requests = [decoder.request(encoder.encode(fields)) for _ in range(2)]

    assert [request.path for request in requests] == ["/a.B/C"] * 2


def test_a_header_list_that_is_too_large() -> None:
    """However small its block is."""
    decoder = HeaderDecoder(1000)
    encoder = Encoder()
    encoder.encode([("a", "x" * 500)])
    decoder.decode(Encoder().encode([("a", "x" * 500)]))

    with pytest.raises(HPACKError):
        decoder.decode(encoder.encode([("a", "x" * 500)]) * 3)


@pytest.mark.parametrize("length", [0, 1, 126, 127, 128, 254, 255, 256, 16_510, 16_511, 70_000])
def test_literals_of_any_length(length: int) -> None:
    """As another decoder reads them."""
    decoder = Decoder(max_header_list_size=200_000)

    [header] = decoder.decode(literals([("name", "x" * length)]), raw=True)

    assert list(header) == [b"name", b"x" * length]
    assert not decoder.header_table.dynamic_entries
