"""What is cached is what would have been computed; runs may share it."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from studio.backend.shard import Shard
from studio.data.build import images
from studio.data.cache import Cache, Encoder, TextCache, check_cache, digest
from studio.data.config import Captions, Images
from studio.errors import StudioError
from tests.data.conftest import draw


class Counting:
    """An encoder that takes every fourth pixel and counts its calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, pixels: Tensor) -> dict[str, Tensor]:
        self.calls += 1
        return {"latents": pixels[:, :, ::4, ::4], "latents_std": pixels[:, :1, ::4, ::4].abs()}


def settings(folder: Path, **options) -> Images:
    return Images(resolution=32, cache="latents", cache_folder=str(folder / "cache"), **options)


def first_batch(source) -> dict:
    stream = source.stream(0, 0, Shard(4, 0, 4))
    batch = next(stream)
    stream.close()
    return batch


def test_cached_latents_are_the_encoder_s_own(photos: Path, tmp_path: Path):
    encode = Counting()
    cached = first_batch(images(settings(tmp_path), photos, encoder=Encoder(encode=encode, fingerprint="a")))
    plain = first_batch(images(Images(resolution=32), photos))
    assert all(torch.equal(cached[name], value) for name, value in encode(plain["images"]).items())
    assert cached["captions"] == plain["captions"]


def test_captions_vary_as_without_a_cache(photos: Path, tmp_path: Path):
    varied = Captions(dropout=0.4)
    encoder = Encoder(encode=Counting(), fingerprint="a")
    cached = take(images(settings(tmp_path, captions=varied), photos, encoder=encoder), 5)
    plain = take(images(Images(resolution=32, captions=varied), photos), 5)
    assert [batch["captions"] for batch in cached] == [batch["captions"] for batch in plain]
    assert any("" in batch["captions"] for batch in cached)


def test_a_second_run_asks_the_encoder_nothing(photos: Path, tmp_path: Path):
    images(settings(tmp_path), photos, encoder=Encoder(encode=Counting(), fingerprint="a"))
    again = Counting()
    source = images(settings(tmp_path), photos, encoder=Encoder(encode=again, fingerprint="a"))
    assert again.calls == 0
    assert any("5 from the cache, 0 made" in fact for fact in source.facts)


@pytest.mark.parametrize("change", ["weights", "dtype", "picture", "resolution"])
def test_what_the_latent_follows_from_changes_its_key(photos: Path, tmp_path: Path, change: str):
    images(settings(tmp_path), photos, encoder=Encoder(encode=Counting(), fingerprint="a"))
    again = Counting()
    dtype = torch.bfloat16 if change == "dtype" else torch.float32
    encoder = Encoder(encode=again, fingerprint="b" if change == "weights" else "a", dtype=dtype)
    if change == "picture":
        draw(photos / "0.png", (48, 40), seed=99)
    size = {"resolution": 40} if change == "resolution" else {}
    images(
        Images(**{"resolution": 32, "cache": "latents", "cache_folder": str(tmp_path / "cache"), **size}),
        photos,
        encoder=encoder,
    )
    assert again.calls == (1 if change == "picture" else 5)


def test_a_name_is_not_part_of_the_key(photos: Path, tmp_path: Path):
    images(settings(tmp_path), photos, encoder=Encoder(encode=Counting(), fingerprint="a"))
    (photos / "0.png").rename(photos / "renamed.png")
    again = Counting()
    images(settings(tmp_path), photos, encoder=Encoder(encode=again, fingerprint="a"))
    assert again.calls == 0


def test_views_are_cached_each(photos: Path, tmp_path: Path):
    encode = Counting()
    source = images(
        settings(tmp_path, flip=0.5, cache_views=2), photos, encoder=Encoder(encode=encode, fingerprint="a")
    )
    assert encode.calls == 10
    pool = torch.cat([batch["latents"] for batch in take(source, 20)])
    assert len(pool.unique(dim=0)) == 10


def take(source, count: int) -> list[dict]:
    stream = source.stream(0, 0, Shard(4, 0, 4))
    taken = [next(stream) for _ in range(count)]
    stream.close()
    return taken


def test_a_cached_stream_started_in_the_middle_goes_on_as_the_whole_one(photos: Path, tmp_path: Path):
    source = images(
        settings(tmp_path, flip=0.5, cache_views=2),
        photos,
        encoder=Encoder(encode=Counting(), fingerprint="a"),
    )
    stream = source.stream(0, 3, Shard(4, 2, 4))
    later = next(stream)
    stream.close()
    assert torch.equal(take(source, 4)[3]["latents"][2:], later["latents"])


@pytest.mark.parametrize("option", [{"crop": "random"}, {"flip": 0.5}])
def test_a_cache_that_would_freeze_an_augmentation_is_refused(option: dict):
    with pytest.raises(StudioError, match=r"would freeze .* to one view .* set cache_views to 2 or more"):
        Images(cache="latents", **option)


def test_a_text_cache_is_refused_when_the_text_encoder_trains():
    with pytest.raises(StudioError, match="keeps text embeddings, which a trained text encoder changes"):
        check_cache(Images(cache="latents+text"), trains_text=True)


def test_what_is_cached_is_said():
    facts = check_cache(Images(cache="latents+text", captions=Captions(dropout=0.1)), trains_text=False)
    assert "one view" in facts[0]
    assert "each variant of a caption" in facts[1]


def test_many_writers_of_one_key_agree(tmp_path: Path):
    key, value = digest("key"), torch.arange(1000.0)
    caches = [Cache(tmp_path) for _ in range(8)]
    with ThreadPoolExecutor(8) as pool:
        got = list(pool.map(lambda cache: cache.get(key, lambda: {"x": value})["x"], caches))
    assert all(torch.equal(tensor, value) for tensor in got)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [f"{key}.safetensors"]


def test_a_damaged_cache_file_is_made_again(tmp_path: Path, caplog):
    key = digest("key")
    Cache(tmp_path).get(key, lambda: {"x": torch.zeros(3)})
    next(tmp_path.rglob("*.safetensors")).write_bytes(b"half")
    assert torch.equal(Cache(tmp_path).get(key, lambda: {"x": torch.ones(3)})["x"], torch.ones(3))
    assert "is damaged" in caplog.text


@pytest.mark.parametrize("wrong", ["other values", "another key", "no name"])
def test_a_file_that_does_not_hold_what_its_name_says_is_made_again(tmp_path: Path, caplog, wrong: str):
    key, other = digest("key"), digest("other")
    Cache(tmp_path).get(key, lambda: {"x": torch.zeros(3)})
    file = next(tmp_path.rglob("*.safetensors"))
    with safe_open(file, "pt") as opened:
        told = opened.metadata()
    match wrong:
        case "other values":
            save_file({"x": torch.ones(3)}, file, metadata=told)
        case "another key":
            save_file({"x": torch.zeros(3)}, file, metadata=told | {"key": other})
        case "no name":
            save_file({"x": torch.zeros(3)}, file)
    assert torch.equal(
        Cache(tmp_path).get(key, lambda: {"x": torch.full((3,), 2.0)})["x"], torch.full((3,), 2.0)
    )
    assert "does not hold what its name says" in caplog.text


def test_a_cache_that_cannot_be_written_says_what_to_do(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(
        StudioError, match=r"Cannot write the cache .* set another cache_folder, or set cache to 'none'"
    ):
        Cache(tmp_path / "file").get(digest("key"), lambda: {"x": torch.zeros(1)})


def test_captions_are_embedded_once_each(tmp_path: Path):
    asked = []

    def embed(caption: str) -> dict[str, Tensor]:
        asked.append(caption)
        return {"tokens": torch.full((1, 2, 3), float(len(caption)))}

    for fingerprint in ("a", "a", "b"):
        texts = TextCache(cache=Cache(tmp_path), fingerprint=fingerprint)
        for caption in ("a dog", "", "a dog"):
            assert texts(caption, lambda caption=caption: embed(caption))["tokens"][0, 0, 0] == len(caption)
    assert asked == ["a dog", "", "a dog", ""]
