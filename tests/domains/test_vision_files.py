"""Image files from anywhere: modes of Pillow, transparency, suffixes, shapes, and how folders are laid out."""

import json
import struct
import tracemalloc
import unicodedata
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from core.config import PositionConfig
from domains.data_warnings import DataWarning, record_data_warnings
from domains.vision.adapter import Adapter
from domains.vision.config import DataConfig, ModelConfig, OnError, Source
from domains.vision.data import Data
from domains.vision.decode import decode_image, image_files, read_image
from domains.vision.evaluate import evaluate
from domains.vision.explain import explanations
from domains.vision.predict import predict, read_images

Y, X = 11, 13


def drawing(kind="square", number=0):
    """(Y, X) in [0, 1]: a square or a bar, each somewhere else."""
    pixels = np.zeros((Y, X))
    row, column = number % 5, number % 7
    if kind == "square":
        pixels[row : row + 5, column : column + 5] = 1
    else:
        pixels[row : row + 2, :] = 1
    return pixels


def grey(pixels):
    return Image.fromarray((255 * pixels).astype(np.uint8))


def clear(pixels, colour):
    """An image of one colour, opaque where pixels are 1."""
    image = Image.new("RGB", (X, Y), colour)
    image.putalpha(grey(pixels))
    return image


def folder(root, save, kinds=("bar", "square"), count=13):
    for kind in kinds:
        (root / kind).mkdir(parents=True)
        for number in range(count):
            save(drawing(kind, number), root / kind / str(number))
    return root


def png(pixels, path):
    grey(pixels).save(f"{path}.png")


def open_data(root, **settings):
    """The data of a folder, and what was said."""
    with record_data_warnings(show=False) as said:
        data = Data(DataConfig(source=Source.folder, path=str(root), **settings))
        data.setup()
    return data, said


def model(spec, **settings):
    torch.manual_seed(0)
    return Adapter(ModelConfig(dim=8, depth=1, num_heads=2, patch_size=1, **settings), PositionConfig(), spec).eval()


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_bytes(rows, side, depth, colour, transparent):
    """A PNG with a transparent colour, which Pillow itself cannot write in all depths."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", *side, depth, colour, 0, 0, 0))
    body = head + chunk(b"tRNS", transparent) + chunk(b"IDAT", zlib.compress(b"".join(b"\0" + row for row in rows)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


# transparency

CLEAR = {
    "RGBA": lambda p, path: clear(p, "black").save(path, "PNG"),
    "LA": lambda p, path: clear(p, "black").convert("LA").save(path, "PNG"),
    "webp": lambda p, path: clear(p, "black").save(path, "WEBP", lossless=True),
    "tiff": lambda p, path: clear(p, "black").save(path, "TIFF"),
    "L and a colour": lambda p, path: grey(1 - p).save(path, "PNG", transparency=255),
    "RGB and a colour": lambda p, path: grey(1 - p).convert("RGB").save(path, "PNG", transparency=(255, 255, 255)),
}


def palette(p, path, kind, transparency):
    image = Image.fromarray(p.astype(np.uint8), "P")
    image.putpalette([90, 10, 10, 0, 0, 0])
    image.save(path, kind, transparency=transparency)


CLEAR |= {
    "palette": lambda p, path: palette(p, path, "PNG", 0),
    "palette of bytes": lambda p, path: palette(p, path, "PNG", b"\0\xff"),
    "gif": lambda p, path: palette(p, path, "GIF", 0),
}


@pytest.mark.parametrize("kind", CLEAR)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_transparent_drawing_is_laid_on_white(tmp_path, kind, channels):
    CLEAR[kind](drawing(), tmp_path / "a")
    want = np.broadcast_to(255 - 255 * drawing(), (channels, Y, X))
    assert np.array_equal(read_image(tmp_path / "a", (channels, Y, X)), want)


@pytest.mark.parametrize("colour", ["white", (240, 240, 235)])
def test_what_white_would_hide_is_laid_on_black(tmp_path, colour):
    clear(drawing(), colour).save(tmp_path / "a.png")
    pixels = read_image(tmp_path / "a.png", (3, Y, X))
    assert (pixels[:, drawing() == 0] == 0).all()
    assert (pixels[:, drawing() == 1] > 230).all()


def test_half_of_a_colour_shines_through(tmp_path):
    clear(drawing() * 0.4, "black").save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", (1, Y, X))[0], np.where(drawing() == 1, 153, 255))


def test_an_alpha_channel_that_is_opaque_changes_nothing(tmp_path):
    image = Image.effect_noise((X, Y), 90).convert("RGB")
    image.save(tmp_path / "plain.png")
    image.putalpha(255)
    image.save(tmp_path / "alpha.png")
    plain, alpha = (read_image(tmp_path / name, (3, Y, X)) for name in ("plain.png", "alpha.png"))
    assert np.array_equal(plain, alpha)
    root = folder(tmp_path / "a", lambda p, path: grey(p).convert("RGBA").save(f"{path}.png"))
    assert open_data(root)[1] == []


def test_a_transparent_colour_in_every_depth(tmp_path):
    """Grey in samples of 1, 4 and 16 bits, of which the darker one is transparent."""
    one = (drawing() == 1).astype(np.uint16)
    four = np.pad(8 - 3 * one, ((0, 0), (0, X % 2))).astype(np.uint8)
    rows = {1: np.packbits(1 - one, 1), 4: four[:, ::2] << 4 | four[:, 1::2], 16: (40_000 - 9_000 * one).astype(">u2")}
    for depth, dark, light in ((1, 0, 255), (4, 5, 8 * 17), (16, 31_000, 40_000 >> 8)):
        data = png_bytes([row.tobytes() for row in rows[depth]], (X, Y), depth, 0, struct.pack(">H", dark))
        (tmp_path / f"{depth}.png").write_bytes(data)
        found = decode_image(tmp_path / f"{depth}.png", (1, Y, X))
        ground = 0 if depth == 1 else 255  # on which white is seen
        assert np.array_equal(found.pixels[0], np.where(one, ground, light)), depth
        assert "partly transparent" in found.remarks[-1]


def test_training_and_prediction_say_and_do_the_same_about_transparency(tmp_path):
    root = folder(tmp_path / "a", lambda p, path: clear(p, "white" if path.name < "3" else "red").save(f"{path}.png"))
    data, said = open_data(root)
    assert sorted(line.partition(": ")[2] for line in said) == [
        "partly transparent and so light that they are laid on black (first: bar/0.png)",
        "partly transparent, and laid on white (first: bar/3.png)",
    ]
    adapter = model(data.spec())
    with record_data_warnings(show=False) as again:
        predict(adapter, str(root), tmp_path / "out")
    assert again == said
    file = root / "bar" / "3.png"
    assert torch.equal(read_images(adapter, [file])[0], torch.tensor(read_image(file, (3, Y, X))) / 255)
    with pytest.warns(DataWarning, match=r"1 of 1 images in .*3\.png: partly transparent, and laid on white"):
        explanations(adapter, str(file))


# more than 8 bits


def deep(dtype, scale, offset=0):
    return lambda p, path: Image.fromarray((p * scale + offset).astype(dtype)).save(f"{path}.tif")


@pytest.mark.parametrize(
    ("save", "mode", "ends"),
    [
        (deep(np.uint16, 65_535), "I;16", (0, 65_535)),
        (deep(np.uint16, 4_095), "I;16", (0, 4_095)),
        (deep(np.uint16, 47, 20_000), "I;16", (20_000, 20_047)),
        (deep(np.int32, 70_001), "I", (0, 70_001)),
        (deep(np.int32, 4_000, -1_024), "I", (-1_024, 2_976)),
        (deep(np.float32, 1), "F", (0, 1)),
        (deep(np.float32, 255), "F", (0, 255)),
        (deep(np.float32, 2, -1), "F", (-1, 1)),
        (deep(np.float32, 2**-20), "F", (0, 2**-20)),
    ],
)
def test_deep_pixels_are_scaled_by_the_range_of_the_data(tmp_path, save, mode, ends):
    data, said = open_data(folder(tmp_path / "a", save))
    assert data.images.shape == (1, Y, X)
    assert json.loads(json.dumps(data.spec()))["ranges"] == {mode: [*map(float, ends)]}
    low, high = ends
    assert len(said) == 1
    assert (
        f"26 of 26 images in {tmp_path}/a: of mode {mode}, scaled to 8 bits from {low:g} … {high:g} (first" in said[0]
    )
    files = sorted((tmp_path / "a" / "bar").iterdir(), key=lambda path: int(path.stem))
    want = torch.tensor(np.stack([drawing("bar", n) for n in range(13)]), dtype=torch.float32)
    torch.testing.assert_close(read_images(model(data.spec()), files)[:, 0], want, rtol=0, atol=1 / 256)


def test_the_range_is_that_of_all_images_and_goes_with_the_model(tmp_path):
    def save(p, path):
        Image.fromarray((p * 300 * (1 + int(path.name))).astype(np.uint16)).save(f"{path}.png")

    data, _ = open_data(folder(tmp_path / "a", save))
    assert data.spec()["ranges"] == {"I;16": [0, 4095]}
    adapter = model(data.spec())
    dark = read_images(adapter, [tmp_path / "a" / "square" / "0.png"])
    assert dark.max().item() == pytest.approx((300 >> 4) / 255)
    Image.fromarray((drawing() * 9_000).astype(np.uint16)).save(tmp_path / "bright.png")
    with pytest.warns(DataWarning, match=r"from 0 … 4095 and cut there \(first: bright\.png from 0 to 9000\)"):
        predict(adapter, str(tmp_path / "bright.png"), tmp_path / "out")
    alone = read_images(model({**data.spec(), "ranges": {}}), [tmp_path / "a" / "square" / "0.png"])
    assert alone.max().item() == pytest.approx((300 >> 2) / 255)  # of 10 bits


def test_sixteen_bits_are_read_as_before(tmp_path):
    pixels = np.arange(65_536, dtype=np.uint16).reshape(256, 256)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert np.array_equal(read_image(tmp_path / "a.png", (1, 256, 256))[0], pixels >> 8)
    (tmp_path / "a.pgm").write_bytes(b"P5 256 256 65535\n" + pixels.astype(">u2").tobytes())
    assert np.array_equal(read_image(tmp_path / "a.pgm", (1, 256, 256))[0], pixels >> 8)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_pixels_that_are_no_numbers_are_refused(tmp_path, value):
    def save(p, path):
        if path.name == "7":
            p[1, 2] = value
        Image.fromarray(p.astype(np.float32)).save(f"{path}.tif")

    root = folder(tmp_path / "a", save)
    with pytest.raises(ValueError, match=r"7\.tif cannot be read .* some of its pixels are NaN or infinite \(2 such"):
        open_data(root)
    data, said = open_data(root, on_error=OnError.skip)
    assert len(data.images.labels) == 24
    assert "2 of 26 files" in said[0]
    assert "NaN or infinite" in said[0]


@pytest.mark.parametrize(("mode", "suffix"), [("CMYK", "tif"), ("YCbCr", "tif"), ("LAB", "tif"), ("1", "png")])
def test_other_modes_are_converted(tmp_path, mode, suffix):
    image = grey(drawing())
    if mode == "LAB":
        image = Image.merge("LAB", [image, *[Image.new("L", image.size, 128)] * 2])
    else:
        image = image.convert("RGB").convert(mode)
    image.save(tmp_path / f"a.{suffix}")
    pixels = read_image(tmp_path / f"a.{suffix}", (3, Y, X))
    assert (pixels[:, drawing() == 1] > 245).all()
    assert (pixels[:, drawing() == 0] < 10).all()


def test_sixteen_bits_a_colour_and_further_frames_are_said(tmp_path):
    def save(p, path):
        if path.name == "0":
            rows = [np.repeat(row, 3).astype(">u2").tobytes() for row in p * 65_535]
            path.with_suffix(".png").write_bytes(png_bytes(rows, (X, Y), 16, 2, b"\0\1\0\1\0\1"))
        else:
            grey(p).save(f"{path}.gif", save_all=True, append_images=[grey(1 - p)] * (path.name == "3"))

    _, said = open_data(folder(tmp_path / "a", save))
    assert [line.partition(": ")[2] for line in said if "transparent" not in line] == [
        "of 16 bits a colour, of which Pillow reads the upper 8 (first: bar/0.png)",
        "of several frames or pages, of which the first is read (first: bar/3.gif)",
    ]


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif", "avif"])
def test_every_format_stands_as_its_camera_noted(tmp_path, suffix):
    image = Image.new("L", (29, 13), 10)
    image.paste(240, (0, 0, 29, 5))
    noted = Image.Exif()
    noted[0x0112] = 6  # to be turned by 90° to the right
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / f"a.{suffix}", exif=noted)
    pixels = read_image(tmp_path / f"a.{suffix}", (1, 13, 29))[0].astype(int)
    assert np.abs(pixels - np.asarray(image)).mean() < 5


# data in which nothing can be learned


@pytest.mark.parametrize("value", [0, 1])
def test_images_that_all_look_the_same_are_refused(tmp_path, value):
    root = folder(tmp_path / "a", lambda p, path: grey(p * value / 255).save(f"{path}.png"))
    with pytest.raises(
        ValueError, match=r"all 18 images of the train split are read as the same picture, .* from 0 to"
    ):
        open_data(root)


def test_a_test_split_that_is_all_the_same_is_refused(tmp_path):
    folder(tmp_path / "a" / "train", png)
    folder(tmp_path / "a" / "test", lambda p, path: png(drawing(), path))
    with pytest.raises(ValueError, match=r"all 26 images of the test split are read as the same picture"):
        open_data(tmp_path / "a")


def test_a_class_of_blank_images_is_counted(tmp_path):
    root = folder(
        tmp_path / "a", lambda p, path: png(p * (path.parent.name != "blank"), path), ("bar", "blank", "square")
    )
    data, said = open_data(root)
    assert data.images.classes == ["bar", "blank", "square"]
    assert [line.partition(": ")[2] for line in said] == ["of a single colour, as they are read (first: blank/0.png)"]


# folders


@pytest.mark.parametrize(
    ("names", "sizes"),
    [
        (("Training", "Testing"), [23, 3, 26]),
        (("TRAIN", "Valid", "test"), [26, 26, 26]),
        (("training_set", "test_set"), [23, 3, 26]),
        (("train", "dev", "Test images"), [26, 26, 26]),
        (("train", "eval"), [20, 26, 6]),
        (("train",), [18, 2, 6]),
    ],
)
def test_split_folders_as_they_are_called(tmp_path, names, sizes):
    for name in names:
        folder(tmp_path / name, png)
    data, said = open_data(tmp_path)
    assert data.images.classes == ["bar", "square"]
    assert [data.size(split) for split in ("train", "val", "test")] == sizes
    assert said == []


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("train", "Training"), r"several folders of the train split, Training, train; keep one"),
        (("train", "val", "validation"), r"several folders of the val split, val, validation; keep one"),
        (("test", "cars"), r"has test, named like splits, but no folder train"),
        (("val", "test"), r"has test, val, named like splits, but no folder train"),
        (("cats/train", "cats/test", "dogs/train"), r"has folders test, train below those of its classes; put splits"),
        (("photos/train", "photos/test"), r"below those of its classes; if they are splits, give data\.path=.*photos$"),
    ],
)
def test_split_folders_that_are_not_clear(tmp_path, names, message):
    for name in names:
        folder(tmp_path / name, png)
    with pytest.raises(ValueError, match=message):
        open_data(tmp_path)


def test_images_without_a_class_in_a_split(tmp_path):
    folder(tmp_path / "train", png)
    (tmp_path / "test").mkdir()
    with pytest.raises(ValueError, match=r"test holds no images"):
        open_data(tmp_path)
    png(drawing(), tmp_path / "test" / "0")
    with pytest.raises(ValueError, match=r"0\.png lies in no sub-folder"):
        open_data(tmp_path)


def test_folders_beside_splits_are_left_out_and_a_class_may_be_called_train(tmp_path):
    folder(tmp_path / "a" / "train", png)
    folder(tmp_path / "a" / "more", png)
    data, said = open_data(tmp_path / "a")
    assert len(data.images.labels) == 26
    assert said == [
        f"26 of 52 files in {tmp_path}/a were left out: 26 beside the folders of splits (first: more/bar/0.png)"
    ]
    folder(tmp_path / "b", png, ("square", "bar"))
    (tmp_path / "b" / "bar").rename(tmp_path / "b" / "train")
    data, said = open_data(tmp_path / "b")
    assert data.images.classes == ["square", "train"]
    assert "the folder train" in said[0]
    assert "is taken for a class" in said[0]


def test_a_class_is_the_same_in_both_forms_of_unicode(tmp_path):
    for split, name in (("train", unicodedata.normalize("NFD", "Café")), ("test", "Caf\u00e9")):
        folder(tmp_path / split, png, ("square", "bar"))
        (tmp_path / split / "bar").rename(tmp_path / split / name)
    data, said = open_data(tmp_path)
    assert data.images.classes == ["Café", "square"]
    assert [data.size(split) for split in ("train", "val", "test")] == [23, 3, 26]
    assert said == []


def test_classes_that_look_alike_stay_apart_and_are_said(tmp_path):
    folder(tmp_path / "a", png, ("square", "bar"))
    folder(tmp_path / "b", png, ("square", "bar"))
    (tmp_path / "b" / "bar").rename(tmp_path / "a" / "Bar ")
    data, said = open_data(tmp_path / "a")
    assert data.images.classes == ["Bar ", "bar", "square"]
    assert said == [
        f"1 pairs of classes in {tmp_path}/a differ in case or blanks alone, and stay apart: 'Bar ' and 'bar'"
    ]
    folder(tmp_path / "c" / "train", png)
    folder(tmp_path / "c" / "test", png)
    (tmp_path / "c" / "test" / "bar").rename(tmp_path / "c" / "test" / "Bar")
    with pytest.raises(ValueError, match=r"no training images of Bar; .*; 'Bar' and 'bar' are two classes"):
        open_data(tmp_path / "c")


def test_links_to_classes_and_files_are_followed(tmp_path):
    store = folder(tmp_path / "store", png)
    root = tmp_path / "a"
    (root / "square").mkdir(parents=True)
    (root / "bar").symlink_to(store / "bar")
    for file in (store / "square").iterdir():
        (root / "square" / file.name).symlink_to(file)
    data, said = open_data(root)
    assert data.images.classes == ["bar", "square"]
    assert len(data.images.labels) == 26
    assert said == []
    assert len(image_files(root)) == 26
    folder(tmp_path / "b" / "train", png)
    (tmp_path / "b" / "test").symlink_to("train")
    with pytest.warns(DataWarning, match="read already"), pytest.raises(ValueError, match=r"test holds no images"):
        Data(DataConfig(source=Source.folder, path=str(tmp_path / "b"))).setup()


SUFFIXES = "png PNG jpg jpeg jfif jpe gif bmp dib tif tiff webp avif jp2 tga pcx ppm pnm pgm ico qoi sgi pbm"


def test_all_suffixes_that_pillow_reads(tmp_path):
    for kind in ("square", "bar"):
        (tmp_path / kind).mkdir()
        for number, suffix in enumerate(SUFFIXES.split()):
            mode = {"pbm": "1", "ppm": "RGB", "pnm": "RGB", "qoi": "RGB", "sgi": "RGB"}.get(suffix, "L")
            image = Image.fromarray((255 * np.kron(drawing(kind, number), np.ones((3, 3)))).astype(np.uint8))
            image.convert(mode).save(tmp_path / kind / f"{number}.{suffix}")
    data, said = open_data(tmp_path, size=8)
    assert len(data.images.labels) == 2 * len(SUFFIXES.split())
    assert said == []


def test_a_wrong_suffix_does_not_matter_but_what_runs_a_program_does(tmp_path):
    grey(drawing()).save(tmp_path / "a.jpg", "PNG")
    assert np.array_equal(read_image(tmp_path / "a.jpg", (1, Y, X))[0], 255 * drawing())
    (tmp_path / "b.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match=r"b\.png cannot be read as an image"):
        read_image(tmp_path / "b.png", (1, Y, X))


def test_files_and_folders_that_give_no_image_are_said(tmp_path):
    root = folder(tmp_path / "a", png)
    for name in ("bar/labels.csv", "bar/Thumbs.db", "bar/desktop.ini", "square/1.eps", "square/x.eps", "square/none"):
        (root / name).touch()
    (root / "empty").mkdir()
    (root / "films").mkdir()
    (root / "films" / "a.mp4").touch()
    _, said = open_data(root)
    assert said == [
        f"5 of 33 files in {root} were left out: 1 .csv (first: bar/labels.csv), 1 .mp4 (first: films/a.mp4), "
        "2 .eps (first: square/1.eps), 1 without a suffix (first: square/none)",
        f"2 of 4 class folders in {root} were left out: 2 without an image (first: empty)",
    ]


def test_colour_anywhere_makes_a_model_of_colours(tmp_path):
    root = folder(
        tmp_path / "a",
        lambda p, path: grey(p).convert("RGB" if path.parent.name == "square" else "L").save(f"{path}.png"),
        count=103,
    )
    assert open_data(root)[0].images.shape == (3, Y, X)


def test_a_run_whose_classes_have_changed_is_not_evaluated(tmp_path):
    data, _ = open_data(folder(tmp_path / "a", png))
    adapter = model(data.spec())
    folder(tmp_path / "a", png, ("added",))
    with pytest.raises(ValueError, match=r"other classes than it was trained on: none gone, added new"):
        evaluate(adapter, open_data(tmp_path / "a")[0], tmp_path / "out")


# shapes


@pytest.mark.parametrize("side", [(60_000, 1), (1, 60_000), (20_011, 3)])
def test_a_strip_takes_memory_in_proportion_to_what_is_shown(tmp_path, side):
    at = np.abs(np.arange(max(side)) - max(side) // 2)
    pixels = np.where(at < max(side) // 5, 200, 0).astype(np.uint8)
    pixels = np.broadcast_to(pixels[:, None], (max(side), min(side)))
    Image.fromarray(pixels.T if side[0] > side[1] else pixels).save(tmp_path / "strip.png")
    tracemalloc.start()
    found = read_image(tmp_path / "strip.png", (3, 223, 227))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < 2_000_000
    assert (found == 200).all()  # of the middle


def test_ordinary_shapes_are_resized_as_a_whole(tmp_path):
    """The pixels are those of Pillow's resize and crop; of an image up to 16 times as long as what is shown."""
    for n, (width, height) in enumerate([(97, 61), (61, 97), (401, 31), (29, 17), (17, 251)]):
        image = Image.effect_noise((width, height), 90)
        image.save(tmp_path / f"{n}.png")
        scale = max(23 / height, 19 / width)
        size = (max(19, round(width * scale)), max(23, round(height * scale)))
        image = image.resize(size, Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC)
        left, top = (size[0] - 19) // 2, (size[1] - 23) // 2
        want = np.asarray(image.crop((left, top, left + 19, top + 23)))
        assert np.array_equal(read_image(tmp_path / f"{n}.png", (1, 23, 19))[0], want)


# a model that computes in 16 bits


@pytest.mark.filterwarnings("ignore:patches of")
@pytest.mark.parametrize("half", ["weights", "autocast"])
def test_a_model_in_bfloat16_is_evaluated_drawn_and_explained(tmp_path, half):
    data, _ = open_data(folder(tmp_path / "a", png))
    adapter = model(data.spec())
    if half == "weights":
        adapter = adapter.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=half == "autocast"):
        found = evaluate(adapter, data, tmp_path / "out")
        written = predict(adapter, str(tmp_path / "a"), tmp_path / "out")
        shown = explanations(adapter, str(tmp_path / "a" / "bar" / "0.png"))
    assert 0 <= found.metrics["accuracy"] <= 1
    assert written[-1].name == "maps.png"
    assert len(shown) == 1
