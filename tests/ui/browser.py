"""Headless Chromium and a studio to look at: what the browser tests and the pictures in the README share."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from selenium import webdriver
from selenium.common.exceptions import (
    ElementClickInterceptedException,
    ElementNotInteractableException,
    StaleElementReferenceException,
)
from selenium.webdriver import ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

T = TypeVar("T")
ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
WAIT = 90.0
FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars")  # fmt: skip


def wait(test: Callable[[], T], what: str, seconds: float = WAIT) -> T:
    """What `test` gives once it gives something."""
    end = time.monotonic() + seconds
    while True:
        with contextlib.suppress(StaleElementReferenceException):
            if found := test():
                return found
        if time.monotonic() > end:
            raise AssertionError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.25)


class Studio:
    """`studio ui` in a process of its own."""

    def __init__(self, root: Path, *arguments: str, port: int = 0) -> None:
        self.root, self._arguments, self._port = root, arguments, port
        self.start()

    def start(self) -> None:
        """Start serving; the same root finds the same runs again."""
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        self._log = self.root / ".server.log"
        with self._log.open("w") as output:
            command = [sys.executable, "-m", "studio.cli", "ui", "--port", str(self._port), *self._arguments]
            self.process = subprocess.Popen(
                command, cwd=self.root, env=environment, stdout=output, stderr=output
            )
        try:
            self.address = wait(self._address, f"the server: {self._log}", 180)
        except AssertionError:
            self.kill()
            raise

    def _address(self) -> str:
        text = self._log.read_text()
        if self.process.poll() is not None:
            raise AssertionError(text)
        found = re.search(r"Studio is at (\S+?)/? \(([\d.]+) s", text)
        self.seconds = float(found.group(2)) if found else 0.0
        return found.group(1) if found else ""

    def kill(self) -> None:
        """End the server at once, as a crash would."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def close(self) -> None:
        """End the server as Ctrl-C does, and every worker that it left."""
        from studio.queue.jobs import Jobs
        from studio.queue.supervisor import kill
        from studio.records.processes import Process, alive

        if self.process.poll() is None:
            self.process.terminate()  # a process started in the background ignores SIGINT
            self.process.wait(60)
        jobs = Jobs(self.root / ".studio" / "jobs")
        for job in jobs.running():
            kill(jobs, job.id)
        with jobs.writing() as db:
            holders = db.execute("select pid, started from holders").fetchall()

        for pid, started in holders:
            if alive(Process(pid=pid, started=started)):
                os.kill(pid, signal.SIGKILL)


class Browser:
    """One tab, and the few things a person does in it."""

    def __init__(self, profile: Path, size: tuple[int, int] = (1440, 1000), *, dark: bool = False) -> None:
        options = ChromeOptions()
        options.binary_location = str(CHROMIUM)
        for flag in (*FLAGS, f"--window-size={size[0]},{size[1]}", f"--user-data-dir={profile}"):
            options.add_argument(flag)
        if dark:
            options.add_argument("--force-dark-mode")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
        self.driver = webdriver.Chrome(options=options, service=ChromeService(str(DRIVER)))
        self.driver.set_page_load_timeout(60)

    def open(self, address: str) -> None:
        """Go to a page, and wait until it can be used; the Train page draws its form after it is loaded."""
        self.driver.get(address)
        self._opened(address)
        if "view=" in address:
            return
        form = "[id^=method-]"
        try:
            wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, form), f"the form at {address}")
        except AssertionError as error:  # once in some thirty runs of the suite Gradio's event was lost
            print(f"{error}; the console: {self.driver.get_log('browser')}; the page is loaded again")
            self.driver.get(address)
            self._opened(address)
            wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, form), f"the form at {address}")

    def _opened(self, address: str) -> None:
        wait(
            lambda: self.driver.find_elements(By.CSS_SELECTOR, "#tabs button[role=tab]"),
            f"the page at {address}",
        )

    def find(self, css: str) -> WebElement:
        """A visible element, as soon as there is one."""
        return wait(
            lambda: next(
                (e for e in self.driver.find_elements(By.CSS_SELECTOR, css) if e.is_displayed()), None
            ),
            css,
        )

    def text(self, css: str) -> str:
        """The text of an element, empty while it is not there."""
        with contextlib.suppress(StaleElementReferenceException):
            return " ".join(e.text for e in self.driver.find_elements(By.CSS_SELECTOR, css))
        return ""

    def until(self, css: str, pattern: str, seconds: float = WAIT) -> str:
        """The text of an element once it matches."""

        def matches() -> str:
            text = self.text(css)
            return text if re.search(pattern, text) else ""

        try:
            return wait(matches, f"{pattern!r} in {css}", seconds)
        except AssertionError as error:
            raise AssertionError(f"{error}; there is: {self.text(css)[:600]!r}") from None

    def click(self, css: str) -> None:
        """Click an element, scrolled into view."""

        def clicked() -> bool:
            element = self.find(css)
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
            with contextlib.suppress(ElementClickInterceptedException):
                element.click()
                return True
            return False

        wait(clicked, f"a click on {css}")

    def tab(self, title: str) -> None:
        """Open one of the pages."""
        path = f"//button[@role='tab'][normalize-space()='{title}']"
        wait(lambda: [e for e in self.driver.find_elements(By.XPATH, path) if e.is_displayed()], title)[
            0
        ].click()

    def write(self, css: str, text: str, *, key: str = Keys.TAB) -> None:
        """Replace the text of a field, and leave it."""

        def written() -> bool:
            field = self.find(f"{css} textarea, {css} input:not([type=range])")
            self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", field)
            with contextlib.suppress(ElementNotInteractableException, ElementClickInterceptedException):
                field.click()
                field.send_keys(Keys.CONTROL, "a")
                field.send_keys(Keys.DELETE)
                field.send_keys(text, key)
                return True
            return False

        wait(written, f"writing into {css}")

    def choose(self, css: str, text: str) -> None:
        """Choose from a list by typing."""
        self.write(css, text, key=Keys.ENTER)

    def upload(self, css: str, *files: Path) -> None:
        """Give files to an upload field."""
        inside = f"{css} input[type=file], input[type=file]:has(+ {css})"
        field = wait(lambda: self.driver.find_elements(By.CSS_SELECTOR, inside), css)[0]
        field.send_keys("\n".join(str(file) for file in files))

    def foreign_requests(self) -> list[str]:
        """Addresses outside of this machine that the page has asked for."""
        found = []
        for entry in self.driver.get_log("performance"):
            url = re.search(r'"requestWillBeSent".*?"url":"(https?://[^"]+)"', entry["message"])
            if url and not re.match(r"https?://(127\.0\.0\.1|localhost)[:/]", url.group(1)):
                found.append(url.group(1))
        return found

    def close(self) -> None:
        """Close the browser."""
        self.driver.quit()


@contextlib.contextmanager
def browser(profile: Path, *, size: tuple[int, int] = (1440, 1000), dark: bool = False) -> Iterator[Browser]:
    """A browser for as long as it is needed."""
    opened = Browser(profile, size, dark=dark)
    try:
        yield opened
    finally:
        opened.close()
