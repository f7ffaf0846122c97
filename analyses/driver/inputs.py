"""Files that a user gives: lines of JSON, and pictures. What is wrong is an InterpError that names file, line and key."""

from __future__ import annotations

import hashlib
import json
import math
import stat
import struct
import zlib
from collections.abc import Callable, Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from PIL import Image, ImageOps, UnidentifiedImageError

from cos_interp.analyses.driver import jpeg
from cos_interp.analyses.driver.saying import NUMBERS, OBJECTS
from cos_interp.interp.errors import InterpError
from cos_interp.interp.rgb import to_rgb

LARGEST_FILE = 64 * 2**20  # bytes of a file of lines
MOST_PIXELS = 64_000_000  # of a picture: 8000 x 8000
PICTURES = ("image", "last_image")  # keys whose value is the path of a picture
OF_SCORER = ("expected", "reference")  # keys that the model is not told: what a scorer compares with
FILES = ("reference", "template")  # keys whose value is the path of another file
TEXTS = ("prompt", "negative_prompt")
COMMENTS = ("#", "//")  # how a line begins that is none in other kinds of files
COUNTS = ("height", "width", "num_frames", "num_inference_steps", "max_sequence_length")
# what no line of JSON can hold, or what is a matter of the experiment
NOT_IN_A_LINE = (
    "self", "*latents", "generator", "output_type", "return_dict", "callback*", "*embeds*", "*mask*", "*_cu_seqlens",
    "video", "*_video", "controls", "conditions", "frames", "ref_image", "reference_images", "num_*_per_prompt",
)  # fmt: skip
LARGEST_SEED = 2**63 - 1


def json_lines(path: Path, option: str, example: str) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a file with one JSON object a line, each with its line number from 1; blank lines are left out.

    The file is UTF-8, with or without a byte order mark; a line ends at a line feed and nowhere else (U+2028 may stand in a
    text). Comments, doubled keys, NaN and numbers without end, and texts that are no Unicode are refused.
    """
    lines = text_of(path, option).split("\n")
    found = [(number, _object(f"{option} {path}, line {number}", line, example)) for number, line in enumerate(lines, 1)
             if line.strip(" \t\r")]  # fmt: skip
    if not found:
        raise InterpError(f"{option} {path} has no lines: write one JSON object a line, like {example}")
    return found


def text_of(path: Path, option: str) -> str:
    """The text of a UTF-8 file. InterpError names the line that is none."""
    data = _bytes(path, f"{option} {path}", LARGEST_FILE)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise InterpError(
            f"{option} {path}, line {line}: byte 0x{data[error.start]:02x} is not UTF-8: save the file as UTF-8"
        ) from error


def _bytes(path: Path, where: str, largest: int | None = None) -> bytes:
    """The content of a regular file: a pipe or a device could block or never end."""
    try:
        facts = path.stat()
        if not stat.S_ISREG(facts.st_mode):
            raise InterpError(f"{where} is {_kind(facts.st_mode)}, not a file")
        if largest is not None and facts.st_size > largest:
            raise InterpError(f"{where} has {facts.st_size} bytes, more than the {largest} that are read: split it")
        return path.read_bytes()
    except InterpError:
        raise
    except (OSError, ValueError) as error:
        raise InterpError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in kinds if test(mode)), "a device")


def _object(where: str, line: str, example: str) -> dict[str, Any]:
    if line.lstrip().startswith(COMMENTS):
        raise InterpError(f"{where} is not a line of JSON but a comment: take it out")
    value = strict_json(where, line, "not a line of JSON", f"write it like {example}")
    if not isinstance(value, dict):
        raise InterpError(f"{where} must be an object, it is {_named(value)}: write it like {example}")
    return value


def strict_json(where: str, text: str, wrong: str, remedy: str) -> Any:
    """The value of a JSON text. InterpError for what is none, a doubled key, a number that is not finite, a text that is no
    Unicode."""
    try:
        value = json.loads(text, object_pairs_hook=_once, parse_constant=_finite, parse_float=_finite)
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise InterpError(f"{where}: a text holds half of a surrogate pair, which is no character") from error
    except RecursionError as error:
        raise InterpError(f"{where}: brackets within brackets without end: {remedy}") from error
    except ValueError as error:
        raise InterpError(f"{where} is {wrong} ({error}): {remedy}") from error
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    keys = [key for key, _ in pairs]
    if doubled := [key for key in keys if keys.count(key) > 1]:
        raise ValueError(f"key {doubled[0]!r} stands there twice")
    return dict(pairs)


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no finite number")
    return value


def _named(value: Any) -> str:
    names = {list: "a list", str: "a text", bool: "true or false", int: "a number", float: "a number", type(None): "null"}
    return names.get(type(value), type(value).__name__)


# --- the keywords of one generation ----------------------------------------------------------------------------------


def keywords(where: str, given: dict[str, Any], folder: Path, settings: dict[str, tuple[str, Any]]) -> dict[str, Any]:
    """Checked keywords of one generation: texts are texts, numbers whole and positive, pictures are opened (paths are relative to
    ``folder``). ``settings`` are what the command line says for all: key -> (option, value); another value is refused."""
    if given.get("negative_prompt", "") is None:  # as lists say that there is none
        given = {key: value for key, value in given.items() if key != "negative_prompt"}
    out = dict(given)
    if not isinstance(given.get("prompt"), str):
        held = "missing" if "prompt" not in given else f"{_named(given['prompt'])}, not a text"
        raise InterpError(f"{where}: 'prompt' is {held}")
    for key, value in given.items():
        if any(fnmatchcase(key, pattern) for pattern in NOT_IN_A_LINE):
            raise InterpError(f"{where}: {key} cannot stand in a line: leave it out, or run the model from Python")
        check = _CHECKS.get(key)
        if check is not None and (problem := check(value)):
            raise InterpError(f"{where}: {key} {json.dumps(value)} {problem}")
        if key in PICTURES:
            out[key] = picture(f"{where}: {key} {json.dumps(value)}", folder, value)
        if key in settings:
            option, wanted = settings[key]
            if value != wanted:
                raise InterpError(
                    f"{where}: {key} is {json.dumps(value)}, and {option} is {json.dumps(wanted)} for all runs: make them agree"
                )
            del out[key]
    return out


def _is_text(value: Any) -> str | None:
    return None if isinstance(value, str) else f"is {_named(value)}, not a text"


def _is_count(value: Any) -> str | None:
    return None if type(value) is int and value > 0 else "must be a whole number from 1 on"


def _is_number(value: Any) -> str | None:
    return None if type(value) in (int, float) else f"is {_named(value)}, not a number"


def _is_object(value: Any) -> str | None:
    return None if isinstance(value, dict) else f"is {_named(value)}, not an object"


def _is_seed(value: Any) -> str | None:
    return None if type(value) is int and 0 <= value <= LARGEST_SEED else f"must be a whole number from 0 to {LARGEST_SEED}"


def _is_path(value: Any) -> str | None:
    return None if isinstance(value, str) and value else f"is {_named(value)}, not the path of a picture"


_CHECKS: dict[str, Callable[[Any], str | None]] = {
    **dict.fromkeys(TEXTS, _is_text), **dict.fromkeys(COUNTS, _is_count), **dict.fromkeys(PICTURES, _is_path), "seed": _is_seed,
    **dict.fromkeys(NUMBERS, _is_number), **dict.fromkeys(OBJECTS, _is_object),
}  # fmt: skip


# --- pictures --------------------------------------------------------------------------------------------------------


def picture(where: str, folder: Path, name: str) -> Image.Image:
    """A picture of a file as RGB of 8 bits, turned as its EXIF orientation says; transparent parts over white.

    16-bit grey is scaled, not cut. Refused: what is no single picture in a regular file, and more than ``MOST_PIXELS`` pixels.
    """
    if "\0" in name:
        raise InterpError(f"{where}: a path cannot hold a NUL character")
    path = folder / name
    _regular(path, where)
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_PIXELS:
                raise InterpError(f"{where} has {image.width} x {image.height} pixels, more than {MOST_PIXELS}: make it smaller")
            if image.format == "PNG" and (rows := _missing_rows(path)):
                raise InterpError(f"{where} is damaged: its data end {rows} rows before the picture does")
            if image.format in ("JPEG", "MPO") and (problem := jpeg.damage(_bytes(path, where))):
                raise InterpError(f"{where} is damaged: {problem}: save it again from its source")
            if len(image.info.get("sizes", ())) > 1:  # icons
                raise InterpError(f"{where} holds {len(image.info['sizes'])} pictures: give one")
            if getattr(image, "is_animated", False) and image.format != "MPO":  # a camera's second view is no animation
                raise InterpError(f"{where} holds {getattr(image, 'n_frames', 2)} pictures: give one")
            return to_rgb(ImageOps.exif_transpose(image))
    except InterpError:
        raise
    except (
        OSError,
        UnidentifiedImageError,
        Image.DecompressionBombError,
        SyntaxError,
        ValueError,
        LookupError,  # a JPEG file without the tables or components that it names
        zlib.error,
        struct.error,
    ) as error:
        raise InterpError(f"{where} cannot be read: {error}") from error


def _regular(path: Path, where: str) -> None:
    try:
        mode = path.stat().st_mode
    except (OSError, ValueError) as error:
        raise InterpError(f"{where} cannot be read: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(mode):
        raise InterpError(f"{where} is {_kind(mode)}, not a picture")


def _missing_rows(path: Path) -> int:
    """Rows of a PNG file that its data do not have, where they end early and yet in order: Pillow leaves these black."""
    data, at, held, head = path.read_bytes(), 8, b"", b""
    while at + 8 <= len(data):
        size, kind = struct.unpack(">I4s", data[at : at + 8])
        chunk, at = data[at + 8 : at + 8 + size], at + 12 + size
        head, held = (chunk, held) if kind == b"IHDR" else (head, held + chunk if kind == b"IDAT" else held)
    width, height, depth, colour, _, _, interlaced = struct.unpack(">IIBBBBB", head[:13])
    if interlaced:
        return 0
    row = 1 + (width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] + 7) // 8
    return max(0, height - len(zlib.decompressobj().decompress(held)) // row)


# --- content ---------------------------------------------------------------------------------------------------------


def content(path: Path, option: str) -> dict[str, str]:
    """sha256 of what a file of the user's says, by entry and by file that one names: how it is laid out does not count.

    Of a folder, one for each of the folders in its folders, of all files below it; of another file, one.
    """
    if path.is_dir():
        return _of_folder(path)
    if path.suffix == ".csv":
        return {"content": hashlib.sha256(_bytes(path, f"{option} {path}")).hexdigest()}
    return of_lines(((line, path.parent) for _, line in json_lines(path, option, "{}")), path.parent, option)


def of_lines(lines: Iterable[tuple[dict[str, Any], Path]], home: Path, option: str) -> dict[str, str]:
    """sha256 of lines, each with the folder that its paths start from, by entry and by file that one names."""
    found: dict[str, str] = {}
    for place, (line, folder) in enumerate(lines, 1):
        found[f"entry {place}"] = hashlib.sha256(json.dumps(line, sort_keys=True).encode()).hexdigest()
        needed = {line.get(key) for key in (*PICTURES, *FILES) if isinstance(line.get(key), str)}
        for kind, name in named_files(line):
            if name not in needed and not _is_file(folder / name):  # in what a scorer is told any text may have such a key
                continue
            path = folder / name
            at = path.relative_to(home).as_posix() if folder != home and path.is_relative_to(home) else name
            found[f"{kind} {at}"] = hashlib.sha256(_bytes(folder / name, f"{option} {at}")).hexdigest()
    return found


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a text that is too long for a name
        return False


def _of_folder(path: Path) -> dict[str, str]:
    parts: dict[str, Any] = {}
    for file in sorted(p for p in path.rglob("*") if p.is_file()):
        relative = file.relative_to(path)
        digest = parts.setdefault("/".join(relative.parts[:2]), hashlib.sha256())
        digest.update(relative.as_posix().encode("utf-8", "surrogateescape") + b"\0")
        with file.open("rb") as opened:
            digest.update(hashlib.file_digest(opened, "sha256").digest())
    return {name: digest.hexdigest() for name, digest in parts.items()}


def named_files(value: Any) -> Iterator[tuple[str, str]]:
    """What kind of file each key of a line names, however deep it lies, and how."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in (*PICTURES, *FILES) and isinstance(inner, str):
                yield "picture" if key in PICTURES else "file", inner
            else:
                yield from named_files(inner)
