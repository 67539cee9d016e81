"""Frames arrive whole, however the bytes arrive."""

from dagorama.worker.frames import FrameReader, Kind, Outcome, pack, pack_outcome, unpack_outcome


def test_frames_come_out_as_they_went_in_byte_by_byte() -> None:
    stream = pack(Kind.PIECE, b"a" * 300) + pack(Kind.READY) + pack(Kind.GRANT, b"b")
    reader = FrameReader()
    frames = [frame for byte in stream for frame in reader.feed(bytes([byte]))]
    assert frames == [(Kind.PIECE, b"a" * 300), (Kind.READY, b""), (Kind.GRANT, b"b")]


def test_frames_come_out_as_they_went_in_all_at_once() -> None:
    stream = pack(Kind.PIECE, b"a" * 300) + pack(Kind.GRANT, b"b") + pack(Kind.READY)[:3]
    reader = FrameReader()
    assert reader.feed(stream) == [(Kind.PIECE, b"a" * 300), (Kind.GRANT, b"b")]
    assert reader.feed(pack(Kind.READY)[3:]) == [(Kind.READY, b"")]


def test_the_supervisor_reads_the_outer_header_and_keeps_the_body_as_it_is() -> None:
    outcome = Outcome([1, 2**64 - 1], [b"x" * 32, b"y" * 32], b"opaque", {b"y" * 32: b"n" * 16})
    [(kind, payload)] = FrameReader().feed(pack_outcome(Kind.RESULTS, outcome))
    assert kind == Kind.RESULTS
    assert unpack_outcome(payload) == outcome
