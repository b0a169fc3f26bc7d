"""Bytes of a log as the store keeps them: compressed, as zlib streams."""

from __future__ import annotations

from typing import NamedTuple, Self

from isal import isal_zlib

from edge_otel.errors import BadInput, TooLarge

_PLAIN_HEAD, _HEAD, _FOOT = b"\x1f\x8b\x08\x00", 10, 8
"""How a gzip stream without options begins, and the bytes around what is in it (RFC 1952)."""
_SLICE, _BLOCK = 16 * 1024, 1024 * 1024
"""Bytes that go into inflating at once, and come out at most: nobody needs the whole."""


class Packed(NamedTuple):
    """Some bytes of a log."""

    length: int
    """Before compression."""
    data: bytes

    @classmethod
    def of(cls, data: bytes) -> Self:
        """Compress bytes. At level 1: logs shrink well at any, and the server's processor time is what is scarce."""
        return cls(len(data), isal_zlib.compress(data, 1))

    @classmethod
    def of_gzip(cls, body: bytes, limit: int) -> Self:
        """Return what is in one gzip stream. Unless its head has options it is not compressed again: zlib's is the same
        between another head and another checksum (RFC 1950).

        Raises BadInput where it is no such stream, and TooLarge beyond ``limit`` bytes.
        """
        inflate, length, checksum = isal_zlib.decompressobj(wbits=31), 0, 1
        whole = "The body is not one whole gzip stream."
        try:
            for start in range(0, len(body), _SLICE):
                if inflate.eof:
                    raise BadInput(whole)
                left, full = body[start : start + _SLICE], True
                while full and not inflate.eof:
                    block = inflate.decompress(left, _BLOCK)
                    left, full = inflate.unconsumed_tail, len(block) == _BLOCK
                    length, checksum = length + len(block), isal_zlib.adler32(block, checksum)
                    if length > limit:
                        raise TooLarge(f"The body holds more than {limit} bytes. Send smaller pieces.")
        except isal_zlib.error as error:  # type: ignore[misc]  # its stub says that it is an instance
            raise BadInput(f"The body is not gzip: {error}.") from None
        if not inflate.eof or inflate.unused_data:
            raise BadInput(whole)
        if not body.startswith(_PLAIN_HEAD):
            return cls.of(isal_zlib.decompress(body, wbits=31))
        return cls(length, b"\x78\x01" + body[_HEAD:-_FOOT] + checksum.to_bytes(4, "big"))

    def unpacked(self) -> bytes:
        """Return the bytes."""
        return unpacked(self.data)


def unpacked(data: bytes) -> bytes:
    """Return the bytes of a zlib stream."""
    return isal_zlib.decompress(data)
