"""Seeded damage to the bytes of a file."""

import contextlib
import random
import re
import zlib

_EDGES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)


def mutated(content: bytes, seed: int) -> bytes:
    """The content with one to sixteen damages: bits, bytes, lengths, numbers, pieces lost, doubled or put elsewhere.

    Half of the mutated PNGs get correct checksums again: otherwise nothing behind the checksum would ever be reached.

    Args:
        content: a whole file of at least 16 bytes.
        seed: equal seeds give equal damage.
    """
    chance = random.Random(seed)
    damaged = bytearray(content)
    for _ in range(chance.choice((1, 1, 1, 1, 2, 2, 4, 16))):
        # headers are where damage tells most
        place = chance.randrange(min(len(damaged), chance.choice((64, 512, 2**30))))
        length = chance.choice((1, 1, 2, 4, 8, 64))
        match chance.randrange(8):
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
        if len(damaged) < 16:
            break
    if chance.random() < 0.1:
        del damaged[chance.randrange(len(damaged) + 1) :]
    result = bytes(damaged)
    return _with_checksums(result) if chance.random() < 0.5 else result


def _with_checksums(content: bytes) -> bytes:
    """A PNG with right checksums, of every chunk and of the inflated pixels; anything else as it is."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return content
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
