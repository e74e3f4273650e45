"""Writes images.tar.gz: image files of many kinds with what Pillow reads from them, and bicubic resizes. Needs Pillow 9.4 and numpy.

In the archive: NAME.EXT the file, NAME.rgb its pixels as bytes, and index.json: [{file, width, height, resized: [[width, height, file], …]}, …].
Sixteen-bit files are the exception to Pillow's convert("RGB"), which clips grey ones: expected are the upper eight bits.
"""

import gzip
import io
import json
import struct
import tarfile
import zlib

import numpy as np
from PIL import Image

random = np.random.default_rng(7)
index, members = [], []


def picture(width, height, channels):
    """Waves, an edge and some noise: it compresses, and yet every tap of a filter shows."""
    y, x = np.mgrid[0:height, 0:width]
    planes = []
    for c in range(channels):
        wave = 120 + 90 * np.sin(x / (3.0 + c) + c) * np.cos(y / (5.0 - c)) + np.where((x + 2 * y) % 41 < 5, 110 - 70 * c, 0)
        planes.append(wave + random.integers(-6, 7, wave.shape))
    return np.clip(np.stack(planes, -1), 0, 255).astype(np.uint8)


def put(name, data):
    members.append((name, data))


def add(name, data, resized=(), expected=None):
    """Stores a file and what Pillow makes of it."""
    put(name, data)
    if expected is None:
        image = Image.open(io.BytesIO(data)).convert("RGB")
    else:
        image = Image.fromarray(expected)
    stem = name.replace(".", "-")
    put(stem + ".rgb", image.tobytes())
    entry = {"file": name, "width": image.width, "height": image.height, "pixels": stem + ".rgb", "resized": []}
    for width, height in resized:
        result = f"{stem}-{width}x{height}.rgb"
        put(result, image.resize((width, height), Image.Resampling.BICUBIC).tobytes())
        entry["resized"].append([width, height, result])
    index.append(entry)


def save(name, image, resized=(), **options):
    stream = io.BytesIO()
    image.save(stream, {"jpg": "JPEG", "tif": "TIFF"}.get(name[-3:], name.rsplit(".", 1)[1].upper()), **options)
    add(name, stream.getvalue(), resized)


def png(width, height, depth, kind, rows, chunks=()):
    """A PNG by hand, for what Pillow does not write."""
    def chunk(tag, body):
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    head = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    data = zlib.compress(b"".join(b"\0" + row for row in rows))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunk(*c) for c in chunks) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def tiff(order, width, height, bits, samples, photometric, data, extra=(), sample_format=1):
    """An uncompressed TIFF of one strip by hand."""
    many = struct.pack(order + "H" * samples, *[bits] * samples)
    entries = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, samples, many if samples > 2 else many.ljust(4, b"\0")), (259, 3, 1, 1), (262, 3, 1, photometric),
               (273, 4, 1, 8), (277, 3, 1, samples), (278, 3, 1, height), (279, 4, 1, len(data)), (284, 3, 1, 1), (339, 3, 1, sample_format), *extra]
    entries.sort()
    body = struct.pack(order + "2sHI", b"II" if order == "<" else b"MM", 42, 8 + len(data) + 8) + data + (many.ljust(8, b"\0"))
    body += struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        body += struct.pack(order + "HHI", tag, kind, count)
        if isinstance(value, bytes):
            body += value if len(value) == 4 else struct.pack(order + "I", 8 + len(data))
        else:
            body += struct.pack(order + ("HH" if kind == 3 else "I"), *((value, 0) if kind == 3 else (value,)))
    return body + b"\0\0\0\0"


rgb = Image.fromarray(picture(45, 61, 3))
grey = Image.fromarray(picture(53, 38, 1)[..., 0])
faded = picture(37, 44, 4)
faded[10:20, :, 3] = 0
faded[20:30, :, 3] = 1
rgba = Image.fromarray(faded)
grey_alpha = Image.fromarray(picture(31, 29, 2), "LA")
palette = rgb.quantize(200)
few = rgb.quantize(13)
bits = grey.point(lambda v: 255 if v > 120 else 0).convert("1")
cmyk = Image.fromarray(picture(43, 35, 4), "CMYK")
wide = picture(41, 33, 4).astype(np.uint16) * 257 ^ random.integers(0, 256, (33, 41, 4)).astype(np.uint16)
upper = (wide >> 8).astype(np.uint8)

save("rgb.png", rgb, [(28, 28), (84, 56), (45, 28), (28, 61), (196, 252), (1, 1), (140, 7)])
save("grey.png", grey, [(28, 56)])
save("grey-alpha.png", grey_alpha)
save("rgba.png", rgba, [(56, 28)])
save("palette.png", palette)
save("palette-transparent.png", palette, transparency=bytes(range(200)))
save("palette-4-bit.png", few)
save("bits.png", bits)
save("key.png", rgb, transparency=rgb.getpixel((3, 3)))
stretched = np.asarray(rgb)
add("gamma.png", png(45, 61, 8, 2, [row.tobytes() for row in stretched], [(b"gAMA", struct.pack(">I", 100000))]))
big = wide.astype(">u2")
add("grey-16.png", png(41, 33, 16, 0, [row.tobytes() for row in big[..., 0]]), expected=np.repeat(upper[..., :1], 3, -1))
add("grey-alpha-16.png", png(41, 33, 16, 4, [row.tobytes() for row in big[..., [0, 3]]]), expected=np.repeat(upper[..., :1], 3, -1))
add("rgb-16.png", png(41, 33, 16, 2, [row.tobytes() for row in big[..., :3]]), expected=upper[..., :3].copy())
add("rgba-16.png", png(41, 33, 16, 6, [row.tobytes() for row in big]), expected=upper[..., :3].copy())

save("444.jpg", rgb, [(56, 56)], quality=90, subsampling=0)
save("422.jpg", rgb, quality=75, subsampling=1)
save("420.jpg", rgb, quality=60, subsampling=2)
save("progressive.jpg", rgb, quality=80, subsampling=2, progressive=True)
save("grey.jpg", grey, quality=85)
save("cmyk.jpg", cmyk, quality=90)
exif = Image.Exif()
exif[0x0112] = 6
save("turned.jpg", rgb, quality=85, exif=exif)

save("rgb.bmp", rgb)
save("rgba.bmp", rgba)
save("grey.bmp", grey)
save("palette.bmp", palette)
save("bits.bmp", bits)
save("lossy.webp", rgb, quality=70)
save("lossy-alpha.webp", rgba, quality=80)
save("lossless.webp", rgb, lossless=True)
save("lossless-alpha.webp", rgba, lossless=True, exact=True)

for compression in ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]:
    save(f"rgb-{compression}.tif", rgb, compression=compression)
save("jpeg.tif", rgb, compression="jpeg", quality=85)
save("grey.tif", grey)
save("grey-alpha.tif", grey_alpha)
save("rgba.tif", rgba, compression="tiff_lzw")
save("palette.tif", palette)
save("bits.tif", bits)
save("group4.tif", bits, compression="group4")
save("white-is-zero.tif", grey, tiffinfo={262: 0})
save("cmyk.tif", cmyk)
for orientation in (3, 6, 7):
    save(f"turned-{orientation}.tif", rgb, tiffinfo={0x0112: orientation})
for order in "<>":
    words = wide.astype(order + "u2")
    end = "little" if order == "<" else "big"
    add(f"grey-16-{end}.tif", tiff(order, 41, 33, 16, 1, 1, words[..., 0].tobytes()), expected=np.repeat(upper[..., :1], 3, -1))
    add(f"rgb-16-{end}.tif", tiff(order, 41, 33, 16, 3, 2, words[..., :3].tobytes()), expected=upper[..., :3].copy())
add("rgba-16.tif", tiff("<", 41, 33, 16, 4, 2, wide.astype("<u2").tobytes(), [(338, 3, 1, 2)]), expected=upper[..., :3].copy())
add("white-is-zero-16.tif", tiff("<", 41, 33, 16, 1, 0, wide[..., 0].astype("<u2").tobytes()), expected=np.repeat(255 - upper[..., :1], 3, -1))
add("turned-16.tif", tiff("<", 41, 33, 16, 1, 1, wide[..., 0].astype("<u2").tobytes(), [(274, 3, 1, 6)]), expected=np.rot90(np.repeat(upper[..., :1], 3, -1), -1).copy())

put("index.json", json.dumps(index, indent=1).encode())
with open("images.tar.gz", "wb") as file, gzip.GzipFile(fileobj=file, mode="wb", mtime=0) as packed, tarfile.open(fileobj=packed, mode="w") as archive:
    for name, data in members:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
print(len(index), "files")
