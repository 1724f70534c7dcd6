"""Image files as other programs write them: values against independent writers, and cut and odd files."""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from datamodules.common.splits import Split
from datamodules.image.dataset import ImageSet
from datamodules.image.reading import IMAGES
from perceiver_lightning.errors import InputError


def pixels(path: Path, channels: int = 1) -> torch.Tensor:
    """What the dataset reads of a file, (H, W, C) bytes."""
    return ImageSet(Split([path], [path.name], None, str(path.parent), IMAGES), channels).decode(0)


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Integers of any type over their whole range as bytes: the lowest is 0, the highest 255."""
    info = np.iinfo(values.dtype)
    return ((values.astype(np.int64) - info.min) >> (info.bits - 8)).astype(np.uint8)


def png(width: int, height: int, bits: int, colour: int, rows: bytes, clear: bytes = b"") -> bytes:
    """A PNG by hand; `clear` is its transparent colour."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0))
    transparency = chunk(b"tRNS", clear) if clear else b""
    body = chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + transparency + body


@given(st.data())
def test_every_integer_tiff_says_what_tifffile_wrote(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "any.tif"
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    kind = np.dtype(data.draw(st.sampled_from(["u1", "u2", "i1", "i2"])))
    colour = kind.kind == "u" and data.draw(st.booleans())
    info = np.iinfo(kind)
    values = rng.integers(info.min, info.max, (5, 7, 3) if colour else (5, 7), kind, endpoint=True)
    packed = {"compression": "zlib", "predictor": data.draw(st.booleans())} if data.draw(st.booleans()) else {}
    order = data.draw(st.sampled_from("<>"))
    white = not colour and kind.kind == "u" and (kind.itemsize == 1 or order == "<") and data.draw(st.booleans())
    photometric = "rgb" if colour else "miniswhite" if white else "minisblack"
    big = order == "<" and data.draw(st.booleans())  # Pillow 13 reads no big-endian BigTIFF
    tifffile.imwrite(path, values, byteorder=order, photometric=photometric, bigtiff=big, **packed)
    if kind == "i2" and order == ">" and packed:
        with pytest.raises(InputError, match=r"any.tif: .* found compressed big-endian signed integers"):
            pixels(path)
        return
    wanted = to_bytes(values)
    found = pixels(path, 3 if colour else 1).numpy()
    assert np.array_equal(found, wanted if colour else (255 - wanted if white else wanted)[..., None])


@given(st.integers(1, 65535), st.booleans(), st.booleans(), st.integers(0, 1000))
def test_pgm_and_ppm_are_scaled_by_their_greatest_value(tmp_path_factory, greatest, colour, text, seed):
    path = tmp_path_factory.getbasetemp() / f"any.{'ppm' if colour else 'pgm'}"
    values = np.random.default_rng(seed).integers(0, greatest, (4, 3, 3) if colour else (4, 3), endpoint=True)
    number = (2 if text else 5) + colour
    body = " ".join(map(str, values.reshape(-1))).encode() + b"\n"
    if not text:
        body = values.astype(">u2" if greatest > 255 else "u1").tobytes()
    path.write_bytes(f"P{number}\n# a comment\n3 4\n{greatest}\n".encode() + body)
    found = pixels(path, 3 if colour else 1).numpy().astype(float)
    np.testing.assert_allclose(found, (values if colour else values[..., None]) * 255 / greatest, atol=1)
    path.write_bytes(path.read_bytes()[: -2 * (1 + 6 * text)])
    with pytest.raises(InputError, match=f"{path}: expected an image, found a file that cannot be read"):
        pixels(path, 3 if colour else 1)


def test_a_tiff_of_12_bits(tmp_path):
    values = np.array([[0, 1000, 2048, 4095]])
    packed = b"".join(struct.pack(">I", a << 12 | b)[1:] for a, b in values.reshape(-1, 2))
    tags = [(256, 4), (257, 1), (258, 12), (259, 1), (262, 1), (273, 8), (277, 1), (278, 1), (279, len(packed))]
    directory = struct.pack("<H", len(tags)) + b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8 + len(packed)) + packed + directory + bytes(4))
    assert pixels(tmp_path / "a.tif")[..., 0].tolist() == [[0, 62, 128, 255]]


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("clear", [False, True])
def test_a_grey_png_of_any_depth_with_a_transparent_value(tmp_path, bits, clear):
    values = np.array([0, 1, 2**bits - 1, 0, 0, 1, 1, 2**bits - 1])
    digits = "".join(f"{value:0{bits}b}" for value in values)
    row = int(digits, 2).to_bytes(len(digits) // 8, "big")
    (tmp_path / "a.png").write_bytes(png(8, 1, bits, 0, b"\0" + row, b"\0\0" if clear else b""))
    wanted = values * 255 // (2**bits - 1)
    assert pixels(tmp_path / "a.png").reshape(-1).tolist() == np.where((values == 0) & clear, 255, wanted).tolist()


def test_colour_pngs_of_16_bits(tmp_path):
    row = b"\0" + np.array([0, 32768, 65535, 65535, 0, 255], ">u2").tobytes()
    (tmp_path / "a.png").write_bytes(png(2, 1, 16, 2, row))
    assert pixels(tmp_path / "a.png", 3).tolist() == [[[0, 128, 255], [255, 0, 0]]]
    (tmp_path / "b.png").write_bytes(png(1, 1, 16, 6, b"\0" + np.array([9000, 9000, 9000, 0], ">u2").tobytes()))
    assert pixels(tmp_path / "b.png", 3).tolist() == [[[255, 255, 255]]]
    (tmp_path / "c.png").write_bytes(png(2, 1, 16, 2, row, bytes(6)))
    with pytest.raises(InputError, match="expected a transparent colour of 8 bits, found one of 16"):
        pixels(tmp_path / "c.png")


def test_alpha_of_both_kinds_in_a_tiff(tmp_path):
    for name, value in (("unassalpha", 100), ("assocalpha", 50)):
        tifffile.imwrite(
            tmp_path / "a.tif",
            np.array([[[0, 0], [value, 128]]], "u1"),
            photometric="minisblack",
            planarconfig="contig",
            extrasamples=[name],
        )
        np.testing.assert_allclose(pixels(tmp_path / "a.tif").reshape(-1), [255, 177], atol=1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L", "I;16"])
def test_every_orientation_of_a_camera(tmp_path, orientation, mode):
    turns = {2: (1, 0), 3: (0, 2), 4: (1, 2), 5: (1, 1), 6: (0, 3), 7: (1, 3), 8: (0, 1)}  # mirror, then quarter turns
    stored = np.arange(12, dtype=np.uint8).reshape(3, 4) * 20
    exif = Image.Exif()
    exif[0x112] = orientation
    image = Image.fromarray(stored.astype(np.uint16) << 8) if mode == "I;16" else Image.fromarray(stored).convert(mode)
    image.save(tmp_path / "a.png", exif=exif)
    mirror, quarters = turns.get(orientation, (0, 0))
    wanted = np.rot90(stored[:, ::-1] if mirror else stored, quarters)
    assert pixels(tmp_path / "a.png")[..., 0].tolist() == wanted.tolist()


def test_odd_entries_beside_the_orientation_do_no_harm(tmp_path):
    # A count of a LONG that is no number can be read, but not be written again.
    entries = struct.pack("<HHHI4s", 2, 0x112, 3, 1, b"\6\0\0\0") + struct.pack("<HHI4s", 0x11A, 4, 1, b"ab\0\0")
    exif = b"Exif\0\0II*\0" + struct.pack("<I", 8) + entries + bytes(4)
    Image.fromarray(np.zeros((4, 6), np.uint8)).save(tmp_path / "a.jpg", exif=exif)
    assert pixels(tmp_path / "a.jpg").shape == (6, 4, 1)


WRITTEN = {
    "rgb.jpg": {}, "progressive.jpg": {"progressive": True}, "rgb.png": {}, "rgb.bmp": {}, "rgb.ppm": {},
    "rgb.webp": {}, "lossless.webp": {"lossless": True}, "rgb.tif": {}, "lzw.tif": {"compression": "tiff_lzw"},
    "rgb.gif": {}, "rgb.tga": {"compression": "tga_rle"}, "cmyk.jpg": {}, "one.tif": {}, "one.png": {},
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data", "ignore:Truncated File Read")
@pytest.mark.parametrize("name", WRITTEN)
def test_a_cut_image_is_whole_or_named(tmp_path, name):
    path = tmp_path / name
    values = np.random.default_rng(0).integers(0, 255, (20, 24, 3), np.uint8)
    image = Image.fromarray(values).convert({"cmyk": "CMYK", "one": "1"}.get(path.stem, "RGB"))
    buffer = io.BytesIO()
    image.save(buffer, {"jpg": "JPEG", "tif": "TIFF"}.get(path.suffix[1:], path.suffix[1:].upper()), **WRITTEN[name])
    with Image.open(buffer) as whole:
        wanted = np.asarray(whole.convert("RGB"))
    data = buffer.getvalue()
    path.write_bytes(data)
    assert np.array_equal(pixels(path, 3).numpy(), wanted)
    for count in {*np.linspace(0, len(data), 9, dtype=int), len(data) - 1}:
        path.write_bytes(data[:count])
        try:
            assert np.array_equal(pixels(path, 3).numpy(), wanted)
        except InputError as error:
            assert str(error).startswith(f"{path}: expected an image, found a file that cannot be read (")


@pytest.mark.parametrize(
    "values, options, message",
    [
        (np.zeros((2, 2), "f4"), {}, "found 32, mode F: floats of no known range"),
        (np.zeros((2, 2), "i4"), {}, "found 32, mode I: integers of no known range"),
        (np.zeros((2, 2), "u4"), {"byteorder": ">"}, "found 1 x 32-bit unsigned integers, photometric"),
        (np.zeros((2, 2), "u1"), {"byteorder": ">", "bigtiff": True}, "found a big-endian BigTIFF"),
        (np.zeros((2, 2), "f8"), {}, "found 1 x 64-bit floats"),
        (np.zeros((2, 2), "f2"), {"bigtiff": True}, "found 1 x 16-bit floats"),
        (np.zeros((2, 2, 5), "u1"), {"photometric": "minisblack", "planarconfig": "contig"}, "found 5 x 8-bit"),
        (np.zeros((2, 2), "i2"), {"photometric": "miniswhite"}, "16-bit signed integers, photometric interpretation 0"),
        (
            np.zeros((2, 2, 2), "u1"),
            {
                "photometric": "minisblack",
                "planarconfig": "separate",
                "extrasamples": ["unassalpha"],
                "compression": "zlib",
            },
            "found planes of 8 bits, mode LA",
        ),
        (np.zeros((3, 2, 2), "u2"), {"photometric": "rgb", "planarconfig": "separate"}, "found planes of 16 bits"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_a_tiff_that_pillow_cannot_read_is_named_by_what_it_holds(tmp_path, values, options, message):
    tifffile.imwrite(tmp_path / "a.tif", values, **options)
    with pytest.raises(InputError, match=f"{tmp_path / 'a.tif'}: .*{message}"):
        pixels(tmp_path / "a.tif")


@pytest.mark.parametrize(
    "name, content, message",
    [
        ("a.png", png(2**31 - 1, 2**31 - 1, 8, 0, b"\0"), "exceeds limit"),
        ("a.png", png(20000, 20000, 8, 0, b"\0"), "exceeds limit"),
        ("a.png", png(0, 0, 8, 0, b"\0"), "cannot identify"),
        ("a.png", png(4, 4, 8, 0, b"\0"), "truncated|not enough|incomplete"),
        ("a.pgm", b"P5\n3 many\n255\n123", "many"),
        ("a.pgm", b"P5\n3 1\n99999\n123", "maxval"),
        ("a.bmp", b"BM" + bytes(50), "cannot identify|Unsupported"),
        ("a.tif", b"II*\0\xff\xff\xff\xff", "cannot identify"),
        ("a.gif", b"GIF89a" + b"\xff" * 20, ""),
        ("a.jpg", b"not an image", "cannot identify"),
    ],
)
@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_whatever_a_decoder_raises_is_one_sentence_with_the_name(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"^{tmp_path / name}: expected an image, found .*({message})") as raised:
        pixels(tmp_path / name)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("kind", ["gif", "tif", "png", "webp"])
def test_of_several_frames_the_first_is_read_and_it_is_said(tmp_path, kind, caplog, monkeypatch):
    monkeypatch.setattr("datamodules.common.say._said", set())
    frames = [Image.fromarray(np.full((4, 5, 3), value, np.uint8)) for value in (10, 100, 200)]
    frames[0].save(tmp_path / f"a.{kind}", save_all=True, append_images=frames[1:], lossless=True)
    assert pixels(tmp_path / f"a.{kind}").unique().tolist() == [10]
    assert pixels(tmp_path / f"a.{kind}").unique().tolist() == [10]
    assert [record.message for record in caplog.records] == [
        f"{tmp_path}/a.{kind}: 3 frames or pages, of which the first is read, as of all such images"
    ]


@pytest.mark.parametrize("bits", [8, 10, 12, 13, 16])
@pytest.mark.parametrize("kind", ["grey png", "colour png", "grey tif", "colour tif", "signed tif"])
def test_few_bits_in_images_of_16_are_told(tmp_path, kind, bits, caplog, monkeypatch):
    monkeypatch.setattr("datamodules.common.say._said", set())
    values = np.random.default_rng(0).integers(0, 2**bits, (9, 9, 3 if "colour" in kind else 1)).astype(np.uint16)
    values[0, 0] = 2**bits - 1
    if kind == "signed tif":
        values = (values >> (bits == 16)).astype(np.int16)
    for path in (tmp_path / f"a.{kind[-3:]}", tmp_path / f"b.{kind[-3:]}"):
        if kind.endswith("tif"):
            tifffile.imwrite(path, values if "colour" in kind else values[..., 0])
        else:
            rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
            path.write_bytes(png(9, 9, 16, 2 if "colour" in kind else 0, rows))
        found = pixels(path, values.shape[-1]).numpy().astype(int)
        assert np.array_equal(found, (values.astype(int) + 32768 * (kind == "signed tif")) >> 8)  # no value is changed
    told = f"{tmp_path / 'a'}.{kind[-3:]}: none of its 16-bit values reaches {2**bits}, so it seems to hold {bits} bits"
    assert len(caplog.messages) == (bits <= 12) and all(line.startswith(told) for line in caplog.messages)


def test_black_images_of_16_bits_are_black(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr("datamodules.common.say._said", set())
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(np.full((16, 16, 3), 3, np.uint8)).save(tmp_path / "b.bmp")  # 8 bits
    assert not pixels(tmp_path / "a.png").any() and (pixels(tmp_path / "b.bmp", 3) == 3).all()
    assert not caplog.messages
