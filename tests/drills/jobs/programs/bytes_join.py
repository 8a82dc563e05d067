"""bytes, bytearray, zlib: a buffer grows by parts, is compressed and read back."""

import zlib

buffer = bytearray()
for number in range(1_200):
    buffer += number.to_bytes(4, "little") * 16_384
packed = zlib.compress(bytes(buffer), 1)
print(len(buffer), zlib.crc32(zlib.decompress(packed)))
