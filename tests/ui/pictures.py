"""Takes the README's pictures of each page from a workspace with real runs: `python -m tests.ui.pictures WORKSPACE`."""

import sys
import tempfile
import time
from pathlib import Path

from PIL import Image
from selenium.webdriver.common.by import By

from tests.ui.browser import ROOT, Browser, Studio, browser, wait

TARGET = ROOT / "docs" / "pictures"
WIDE, PHONE = (1440, 1080), (420, 900)
QUALITY = 82


def settle(page: Browser) -> None:
    """Wait until the page has stopped changing and its pictures are there."""
    done = "return [...document.images].every(i => i.complete)"
    before = ""
    for _ in range(40):
        time.sleep(1)
        now = page.driver.find_element(By.CSS_SELECTOR, "#tabs").text
        if now == before and page.driver.execute_script(done):
            return
        before = now


def shoot(page: Browser, name: str) -> None:
    """One picture of what is on the screen."""
    page.driver.execute_script("document.activeElement.blur(); window.scrollTo(0, 0)")
    settle(page)
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "raw.png"
        page.driver.save_screenshot(str(raw))
        with Image.open(raw) as picture:
            picture.convert("RGB").save(TARGET / f"{name}.webp", quality=QUALITY, method=6)


def value(page: Browser, css: str) -> str:
    """What a field holds."""
    return page.driver.execute_script(f"return document.querySelector('{css}').value")


def train(page: Browser, studio: Studio) -> None:
    """The form, with the command and the settings that it would run."""
    page.open(studio.address)
    page.choose("#folder", "unicorn")
    page.write("#method-class_word", "animal")
    page.write("#method-token", "sks")
    page.until("#verdict", "Ready to start")
    wait(lambda: "animal" in value(page, "#command textarea"), "the command")


def runs(page: Browser, studio: Studio) -> None:
    """The newest run with its curves and pictures."""
    page.open(f"{studio.address}/?view=runs")
    page.until("#run-header", "step|Step")


def sample(page: Browser, studio: Studio) -> None:
    """A compare grid: strength of the artifact against the seed."""
    page.open(f"{studio.address}/?view=sample")
    newest = max((studio.root / "runs").glob("*/export"), key=lambda path: path.stat().st_mtime).parent
    page.choose("#artifact-0", f"runs/{newest.name}")
    page.write("#prompt", "a sticker of a sks animal on a yellow background")
    page.write("#guidance", "2")
    page.click("#compare button")
    page.write("#values-x", "0, 0.5, 1")
    page.click("#draw-grid")
    page.until("#result", "strength 0.5", 500)


def data(page: Browser, studio: Studio) -> None:
    """Pictures with captions, one picked."""
    page.open(f"{studio.address}/?view=data")
    page.choose("#data-folder", "unicorn")
    page.click("#data-gallery .pick")


def evaluate(page: Browser, studio: Studio) -> None:
    """The newest report."""
    page.open(f"{studio.address}/?view=evaluate")
    page.click("#reports .card")
    page.find("#report iframe")


def shelf(page: Browser, studio: Studio) -> None:
    """Models and what an artifact tells of itself."""
    page.open(f"{studio.address}/?view=shelf")
    newest = max((studio.root / "runs").glob("*/export"), key=lambda path: path.stat().st_mtime).parent
    page.choose("#artifact", f"runs/{newest.name}")


PAGES = {"train": train, "runs": runs, "sample": sample, "data": data, "evaluate": evaluate, "models": shelf}


def main(root: str, *names: str) -> None:
    """All pictures, or the named ones; one page dark, one as a phone shows it."""
    TARGET.mkdir(parents=True, exist_ok=True)
    studio = Studio(Path(root).resolve())
    try:
        with tempfile.TemporaryDirectory() as profile, browser(Path(profile), size=WIDE) as page:
            for name in names or PAGES:
                PAGES[name](page, studio)
                shoot(page, name)
            if not names or "runs" in names:
                page.open(f"{studio.address}/?view=runs&__theme=dark")
                page.until("#run-header", "Step")
                shoot(page, "runs-dark")
                page.driver.set_window_size(*PHONE)
                page.open(f"{studio.address}/?view=runs")
                page.until("#run-header", "Step")
                shoot(page, "runs-phone")
    finally:
        studio.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
