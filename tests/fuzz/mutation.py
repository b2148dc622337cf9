"""Seeded damage to the bytes of a file."""

import contextlib
import gzip
import random
import re
import zlib

#: What means something in CSV, JSON, XML or a path.
_WORDS = (
    *(
        b'"',
        b",",
        b"\n",
        b"{",
        b"[",
        b"]",
        b"}",
        b"null",
        b"\\ud800",
        b"\0",
        b"..",
        b"/",
        b";",
        b"<",
        b"</",
        b"/>",
        b"&#0;",
    ),
    *(b"&x;", b"<!--", b"<![CDATA[", b"<?x ", b"<!DOCTYPE a>", b"<!DOCTYPE a [<!ENTITY x 'y'>]>"),
)

_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(content: bytes, seed: int) -> bytes:
    """The content with one to sixteen damages: bits, bytes, lengths, numbers, pieces lost, doubled or put elsewhere.

    Half of the mutated PNGs and tar archives get correct checksums again, half of the mutated texts become UTF-8, and
    of half of the gzip files it is the content that is mutated: otherwise nothing behind that would ever be reached.

    Args:
        content: a whole file of at least 16 bytes.
        seed: equal seeds give equal damage.
    """
    chance = random.Random(seed)
    if content.startswith(b"\x1f\x8b") and chance.random() < 0.5:
        return gzip.compress(mutated(gzip.decompress(content), seed), mtime=0)
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 1, 2, 2, 4, 16))):
        # headers are where damage tells most
        place = chance.randrange(min(len(damaged), chance.choice((64, 512, 2**30))))
        length = chance.choice((1, 1, 2, 4, 8, 64))
        match chance.randrange(9):
            case 0:
                damaged[place] ^= 1 << chance.randrange(8)
            case 1:
                damaged[place] = chance.randrange(256)
            case 2:
                width = chance.choice((1, 2, 4))
                value = chance.choice(_EDGES) & (256**width - 1)
                damaged[place : place + width] = value.to_bytes(width, chance.choice(("big", "little")))
            case 3:
                del damaged[place : place + length]
            case 4:
                damaged[place:place] = chance.randbytes(length)
            case 5:
                damaged[place:place] = damaged[place : place + length]
            case 6:
                other = chance.randrange(len(damaged))
                damaged[place : place + length] = damaged[other : other + length]
            case 7:
                numbers = [match for match in re.finditer(rb"\d+", damaged) if len(match[0]) < 8]
                if numbers:
                    number = chance.choice(numbers)
                    text = chance.choice((b"0", b"-1", b"1e999", b"99999999999999999999", b"NaN", b"[" * 3000))
                    damaged[number.start() : number.end()] = text
            case 8:
                damaged[place:place] = chance.choice(_WORDS)
        if len(damaged) < 16:
            break
    if chance.random() < 0.1:
        del damaged[chance.randrange(len(damaged) + 1) :]
    result = bytes(damaged)
    return _mended(result, is_text=_is_text(content)) if chance.random() < 0.5 else result


def _is_text(content: bytes) -> bool:
    try:
        return b"\0" not in content and bool(content.decode())
    except UnicodeDecodeError:
        return False


def _mended(content: bytes, *, is_text: bool) -> bytes:
    """A PNG or tar archive with right checksums, a text in UTF-8; anything else as it is."""
    if is_text:
        return content.decode(errors="ignore").encode()
    if content.startswith(b"\x89PNG\r\n\x1a\n"):
        return _png_with_checksums(content)
    return _tar_with_checksums(content) if b"ustar" in content[:1024] else content


def _png_with_checksums(content: bytes) -> bytes:
    """Right checksums of every chunk and of the inflated pixels."""
    result, place = bytearray(content[:8]), 8
    while place + 12 <= len(content):
        end = place + 8 + int.from_bytes(content[place : place + 4], "big")
        kind, data = content[place + 4 : place + 8], content[place + 8 : end]
        if kind == b"IDAT":
            with contextlib.suppress(zlib.error):
                # what is left of the pixels, without the checksum at their end
                data = zlib.compress(zlib.decompressobj(-zlib.MAX_WBITS).decompress(data[2:], 2**20))
        result += len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")
        place = end + 4
    return bytes(result)


def _tar_with_checksums(content: bytes) -> bytes:
    """Right checksums of every header: the sum of its bytes, with spaces in place of the sum."""
    result = bytearray(content)
    for place in range(0, len(result) - 511, 512):
        if result[place + 257 : place + 262] == b"ustar":
            result[place + 148 : place + 156] = b" " * 8
            result[place + 148 : place + 156] = b"%06o\0 " % sum(result[place : place + 512])
    return bytes(result)
