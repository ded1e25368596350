"""Files of other people, changed at random: each is read, or refused in a sentence, within seconds. See `tests.campaign`."""

import io
import json
import random
import signal
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import torch
import yaml
from PIL import Image, PngImagePlugin

from studio.catalog.run import Run
from studio.data import captions, conversations, files, images, layouts, twins
from studio.errors import StudioError
from studio.models import weighting
from studio.records import recipes, runs, trained
from studio.records.runs import RunFolder
from studio.reports.report import from_run
from studio.settings import serial
from studio.training import checkpoint

HANG = 10
"""Seconds that nothing may take."""
ODD = (None, True, False, 0, -1, 1e308, -1e999, 2**70, "", " ", "\0", "\ud800", "x" * 3000, [], {}, [[]], {"a": []},
       "../../etc/passwd", "/dev/null", "nan", "\u2028", b"\xff".decode("latin-1"))  # fmt: skip
"""Values that nobody expects."""
TURNS = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]
RUN = {
    "method": {"kind": "dreambooth", "data": ".", "class_word": "dog"},
    "loop": {"steps": 3},
    "optim": {"lr": 0.1},
}
Reader = Callable[[Path, bytes], object]


class Hang(BaseException):
    """A reader took longer than it may."""


def _strange(value: Any, chance: random.Random) -> Any:
    """A value of JSON with one of its parts changed for another."""
    if isinstance(value, dict) and value and chance.random() < 0.8:
        key = chance.choice(list(value))
        return (
            value | {key: _strange(value[key], chance)}
            if chance.random() < 0.9
            else {k: v for k, v in value.items() if k != key}
        )
    if isinstance(value, list) and value and chance.random() < 0.8:
        place = chance.randrange(len(value))
        return [*value[:place], _strange(value[place], chance), *value[place + 1 :]]
    return chance.choice(ODD)


def _bytes(raw: bytes, chance: random.Random) -> bytes:
    """Bytes changed as disks, copies and editors change them."""
    changed = bytearray(raw)
    for _ in range(chance.randint(1, 8)):
        place = chance.randrange(len(changed) + 1)
        match chance.randrange(6):
            case 0 if changed:
                changed[place % len(changed)] = chance.randrange(256)
            case 1:
                del changed[place : place + chance.randint(1, 20)]
            case 2:
                changed[place:place] = bytes(chance.randrange(256) for _ in range(chance.randint(1, 5)))
            case 3:
                changed[place:place] = changed[: chance.randint(1, 40)]
            case 4:
                changed = changed[:place]
            case _:
                changed[place:place] = chance.choice(
                    (
                        b"\0",
                        b"\xff\xfe",
                        b"\xef\xbb\xbf",
                        b"{",
                        b"[" * 50,
                        b'"',
                        b",",
                        b"\n",
                        b"1e999",
                        b"NaN",
                    )
                )
    return bytes(changed)


def _json(value: Any, encoding: str = "utf-8") -> bytes:
    return json.dumps(value).encode(encoding)


def _png(text: dict[str, str]) -> bytes:
    info, output = PngImagePlugin.PngInfo(), io.BytesIO()
    for key, value in text.items():
        info.add_text(key, value)
    Image.new("RGB", (8, 8), (200, 30, 20)).save(output, "PNG", pnginfo=info)
    return output.getvalue()


def _written(name: str, read: Callable[[Path], object]) -> Reader:
    """A reader of a file of that name, with a picture beside it."""

    def reader(folder: Path, raw: bytes) -> object:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(raw)
        try:
            return read(folder)
        finally:
            (folder / name).unlink()

    return reader


def _text(read: Callable[[str], object]) -> Reader:
    return lambda folder, raw: read(raw.decode("utf-8", "replace"))


def _report(folder: Path) -> object:
    (folder / "config.json").write_text(json.dumps(RUN))
    try:
        return from_run(RunFolder(folder)), RunFolder(folder).status()
    finally:
        (folder / "config.json").unlink()


def _damage(folder: Path) -> str:
    return checkpoint.damage(folder / "step-00000012")


def _settings(folder: Path) -> Run:
    return Run.from_dict(serial.read_file(folder / "run.yaml"))


PARAMETERS = "a dog on grass\nNegative prompt: blurry\nSteps: 20, Sampler: Euler a, CFG scale: 7, Seed: 3, Size: 512x512"
TEXT_PARTS = (
    "(a:1.3)",
    "{a|b}",
    "((",
    "))",
    "{a|",
    "|}",
    "(a:",
    ":9",
    "9" * 40,
    ")",
    "[x]",
    "\\(",
    "dog, cat",
    "{token}",
    "\0",
    "\u2028",
)
READERS: dict[str, tuple[Reader, bytes | Any]] = {
    "captions": (_written("a.txt", layouts.find), b"a dog, on grass\n"),
    "tables as CSV": (_written("metadata.csv", layouts.find), b'file_name,text,label,mask\na.png,"a, dog\non grass",dog,\n'),
    "tables of lines": (_written("metadata.jsonl", layouts.find), [{"file_name": "a.png", "text": "a dog", "label": "dog"}]),
    "conversations": (_written("a.json", lambda f: conversations.check(f / "a.json")), [{"id": "1", "image": "a.png", "conversations": TURNS}]),
    "twins": (_written("t.json", lambda f: twins._items(f / "t.json")), [{key: "a.png" if "image" in key else "a dog" for key in twins.FIELDS}]),
    "pictures": (_written("b.png", lambda f: images.read(f / "b.png")), _png({})),
    "recipes in pictures": (_written("c.png", lambda f: recipes.read(f / "c.png")), _png({"parameters": PARAMETERS})),
    "recipes in words": (_text(recipes.from_parameters), PARAMETERS.encode()),
    "settings of runs": (_written("config.json", runs.open_run), RUN),
    "settings as YAML": (_written("run.yaml", _settings), yaml.safe_dump(RUN).encode()),
    "events": (_written("events.jsonl", _report), [{"event": "start", "step": 0, "facts": ["a"], "steps": 3}, {"event": "step", "step": 1, "loss": 0.5, "lr": 0.1}, {"event": "preview", "step": 1, "scores": {"quality": 1.0}, "prompts": ["a"]}, {"event": "done", "step": 3}]),
    "method cards": (_written(f"export/{trained.CARD}", trained.find), {"method": "jedi", "model": "x", "guidance": 4, "settings": {}, "text": {}}),
    "manifests": (_written("step-00000012/manifest.json", _damage), {"step": 12, "config": {}, "sha256": {"weights.safetensors": ""}}),
    "weights in prompts": (_text(weighting.parse), b"a (dog:1.3) on ((grass)) [x]"),
    "wildcards in captions": (_text(lambda text: captions.choose(text, torch.Generator().manual_seed(0))), b"a {red|blue {big|small}} dog"),
    "text": (_written("d.txt", lambda f: files.lines(files.read_text(f / "d.txt"))), b"a\nb"),
}  # fmt: skip
"""What is read, how, and a sound example: bytes, or a value of JSON (a list in a file of lines is one value a line)."""


def example(sound: Any, name: str, chance: random.Random) -> bytes:
    """A changed example."""
    if isinstance(sound, bytes):
        if (
            name in ("weights in prompts", "wildcards in captions", "recipes in words")
            and chance.random() < 0.5
        ):
            return "".join(chance.choices(TEXT_PARTS, k=chance.randint(1, 60))).encode("utf-8", "replace")
        return _bytes(sound, chance)
    value = _strange(sound, chance)
    lines = isinstance(value, list) and name in ("tables of lines", "events")
    encoding = chance.choice(("utf-8", "utf-8", "utf-8", "utf-16", "utf-8-sig"))
    raw = b"\n".join(map(_json, value)) + b"\n" if lines else _json(value, encoding)
    return _bytes(raw, chance) if chance.random() < 0.3 else raw


def _late(number: int, frame: FrameType | None) -> None:
    del number, frame
    raise Hang


def run(folder: Path, count: int, seed: int = 0) -> tuple[dict[str, Counter[str]], list[str]]:
    """Read so many changed examples in turn; gives what came of them by reader, and each kind of fault once."""
    Image.new("RGB", (8, 8)).save(folder / "a.png")
    chance, found, faults = random.Random(seed), {name: Counter[str]() for name in READERS}, dict[str, str]()
    before = signal.signal(signal.SIGALRM, _late)
    try:
        for number in range(count):
            name = list(READERS)[number % len(READERS)]
            reader, sound = READERS[name]
            found[name][_one(reader, folder, example(sound, name, chance), name, faults)] += 1
    finally:
        signal.signal(signal.SIGALRM, before)
    left = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    if left != ["a.png"]:
        faults["written"] = f"files were left: {left[:5]}"
    return found, list(faults.values())


def _one(reader: Reader, folder: Path, raw: bytes, name: str, faults: dict[str, str]) -> str:
    signal.alarm(HANG)
    try:
        reader(folder, raw)
    except StudioError as error:
        if "\n" in str(error).strip() and len(str(error)) > 2000:
            faults.setdefault(f"{name} long", f"{name}: a page instead of a sentence: {str(error)[:200]}")
        return "refused"
    except Hang:
        faults.setdefault(f"{name} hang", f"{name}: longer than {HANG} s on {raw[:100]!r}")
        return "hang"
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        key = f"{name} {type(error).__name__} {place.filename} {place.lineno}"
        faults.setdefault(
            key,
            f"{name}: {type(error).__name__}: {str(error)[:120]} at {Path(place.filename).name}:{place.lineno} on {raw[:160]!r}",
        )
        return "traceback"
    finally:
        signal.alarm(0)
    return "read"
