"""The server as an attacker meets it: raw requests, no browser."""

import contextlib
import http.client
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.ui.browser import ROOT, Studio

pytest.importorskip("selenium", reason="the helpers around the server come with the browser's")
pytestmark = pytest.mark.timeout(300)
LOGIN = "anna:correct horse"


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    outside = tmp_path_factory.mktemp("outside")
    (outside / "secret.txt").write_text("secret")
    root = tmp_path_factory.mktemp("workspace")
    (root / "open.txt").write_text("open")
    (root / ".hidden").write_text("hidden")
    (root / "link.txt").symlink_to(outside / "secret.txt")
    (root / "folder").symlink_to(outside)
    opened = Studio(root)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    root = tmp_path_factory.mktemp("locked")
    (root / "open.txt").write_text("open")
    opened = Studio(root, "--host", "0.0.0.0", "--auth", LOGIN)
    yield opened
    opened.close()


def connect(studio: Studio) -> contextlib.closing[http.client.HTTPConnection]:
    port = int(studio.address.rpartition(":")[2])
    return contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60))


def ask(
    studio: Studio, path: str, *, method: str = "GET", body: bytes = b"", **headers: str
) -> tuple[int, str]:
    """Status and body; the path is sent as it is, with nothing cleaned up."""
    with connect(studio) as connection:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in ({"Content-Length": str(len(body))} | headers).items():
            connection.putheader(name, value)
        connection.endheaders(body)
        with connection.getresponse() as answer:
            return answer.status, answer.read().decode("utf-8", "replace")


def headers_of(studio: Studio, path: str, **headers: str) -> http.client.HTTPMessage:
    with connect(studio) as connection:
        connection.request("GET", path, headers=headers)
        with connection.getresponse() as answer:
            answer.read()
            return answer.headers


def test_files_inside_the_workspace_are_shown(studio: Studio):
    assert ask(studio, f"/gradio_api/file={studio.root}/open.txt") == (200, "open")


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd",
        "{root}/../outside0/secret.txt",
        "{root}/folder/secret.txt",
        "{root}/link.txt",
        "{root}/./folder/../../outside0/secret.txt",
        "../../../../../../etc/passwd",
        "open.txt/../../../../../../etc/passwd",
        "{root}/.hidden",
        "{root}/.studio/jobs/jobs.sqlite",
        "{root}/open.txt\0.png",
        "http://127.0.0.1:1/secret",
        "file:///etc/passwd",
    ],
)
@pytest.mark.parametrize("encode", [0, 1, 2])
def test_no_file_outside_is_given_away(studio: Studio, path: str, encode: int):
    named = path.format(root=studio.root)
    for _ in range(encode):
        named = quote(named, safe="")
    if not encode:
        named = named.replace("\0", "%00")
    for route in ("/gradio_api/file=", "/gradio_api//file=", "/file="):
        status, body = ask(studio, f"{route}{named}")
        assert (status in (400, 403, 404), "secret" in body, "root:" in body) == (True, False, False), (
            status,
            body,
        )


def test_answers_carry_a_policy_that_keeps_the_page_to_itself(studio: Studio):
    headers = headers_of(studio, "/")
    assert "default-src 'self'" in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"


def test_an_upload_that_is_too_large_is_refused_before_it_is_read(studio: Studio):
    status, _ = ask(studio, "/gradio_api/upload", method="POST", **{"Content-Length": str(10**12)})
    assert status == 413


def test_another_site_may_not_read_the_page(studio: Studio):
    headers = headers_of(studio, "/config", Origin="https://evil.example")
    assert headers["access-control-allow-origin"] is None


@pytest.mark.parametrize("path", ["/config", "/gradio_api/file={root}/open.txt", "/gradio_api/info"])
def test_without_the_password_there_is_nothing(locked: Studio, path: str):
    assert ask(locked, path.format(root=locked.root))[0] in (401, 404)


def test_with_the_password_there_is_the_page(locked: Studio):
    name, _, password = LOGIN.partition(":")
    body = f"username={name}&password={quote(password)}".encode()
    kind = "application/x-www-form-urlencoded"
    assert ask(locked, "/login", method="POST", body=body, **{"Content-Type": kind})[0] == 200
    wrong = body.replace(b"correct", b"wrong")
    assert ask(locked, "/login", method="POST", body=wrong, **{"Content-Type": kind})[0] == 400


def test_the_terminal_warns_of_an_open_address(locked: Studio):
    assert "can be reached from other machines" in (locked.root / ".server.log").read_text()


def test_another_address_without_a_password_is_refused(tmp_path: Path):
    command = [sys.executable, "-m", "studio.cli", "ui", "--host", "0.0.0.0", "--root", str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=False)
    assert result.returncode == 2
    assert "give --auth NAME:PASSWORD" in result.stderr


def test_the_page_process_never_loads_torch(tmp_path: Path):
    code = (
        "import json, sys\nfrom ui.app import build\nfrom ui.config import App\nfrom ui.workspace import Workspace\n"
        "build(Workspace(sys.argv[1]), App())\n"
        "print(json.dumps([n for n in ('torch', 'diffusers', 'transformers', 'timm') if n in sys.modules]))"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120, check=True)
    assert json.loads(result.stdout.splitlines()[-1]) == []
