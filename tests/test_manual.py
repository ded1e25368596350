"""The manual: a page a method with every setting of it, a page a room, and links that lead somewhere."""

import re

import pytest

from studio.catalog import methods
from studio.catalog.run import Run
from studio.flags.names import flag
from studio.settings import serial
from tests import flags, tree
from tests.manual import api, hook, settings
from tests.manual import methods as pages

TOLD = pages.pages()
SHOWN = [name for name in methods.ours() if not methods.card(name).hidden]


def written(cls: type, *, edit: bool = False) -> set[str]:
    """How a person writes each setting of a class, choices without their members."""
    paths = (re.sub(r":[\w-]+", "", path) for path in flags.flags(cls))
    return {path if edit else flag(path) for path in paths}


def missing(cls: type, text: str, *, edit: bool = False) -> set[str]:
    return {name for name in written(cls, edit=edit) if f"`{name}`" not in text}


@pytest.mark.parametrize("name", SHOWN)
def test_every_setting_of_a_method_is_on_its_page(name: str):
    card = methods.card(name)
    assert missing(card.config, TOLD[f"methods/{name}.md"], edit=not card.trainer) == set()


@pytest.mark.parametrize("name", SHOWN)
def test_a_page_has_paper_command_presets_and_help(name: str):
    card, text = methods.card(name), TOLD[f"methods/{name}.md"]
    assert re.search(rf"^studio (train|sample) .*{name.replace('_', '[-_]')}", text, flags=re.MULTILINE)
    assert card.title in text
    assert all(f"**{preset}**" in text for preset in card.presets)
    assert all(number in text for number in re.findall(r"\d{4}\.\d{5}", card.paper))
    assert all(settings.escaped(said) in text for said in serial.helps(card.config).values())


def test_hidden_methods_have_no_page():
    assert {path for path in TOLD if "pretrain" in path} == set()
    assert len(TOLD) == len(SHOWN) + 2


def test_settings_of_every_run_are_told_once():
    text = TOLD["methods/run.md"]
    assert missing(Run, text) == {"--method"}


def test_members_of_a_choice_are_told_with_their_own_settings():
    text = TOLD["methods/dreambooth.md"]
    assert "`--adapter lora` (default)" in text
    block = text.partition("`--adapter boft`")[2].partition("???")[0]
    assert "`--adapter.factors`" in block


def test_every_room_has_a_page_with_all_its_modules():
    text = "\n".join(api.pages().values())
    modules = [path for path in tree.modules() if path.parts[0] == "studio" and path.name != "__init__.py"]
    assert [name for p in modules if f"::: {(name := api.dotted(tree.ROOT / p))}\n" not in text] == []


@pytest.mark.parametrize(
    ("uri", "text", "turned"),
    [
        ("index.md", "[a](docs/app.md)", "[a](app.md)"),
        ("index.md", "[a](assets/models/studio-tiny/README.md)", "[a](models/studio-tiny/README.md)"),
        ("references.md", "[a](../assets/models/jedi-tiny/README.md)", "[a](models/jedi-tiny/README.md)"),
        ("evidence/oft.md", "![a](oft.png)", "![a](oft.png)"),
        ("models/jedi-tiny/README.md", "[a](../../../docs/app.md)", "[a](../../app.md)"),
        ("index.md", "[a](LICENSE), [b](#methods), [c](https://arxiv.org)", "[a](LICENSE.txt), [b](#methods), [c](https://arxiv.org)"),
    ],
)  # fmt: skip
def test_links_lead_to_where_a_file_is_in_the_manual(uri: str, text: str, turned: str):
    assert hook.relinked(text, uri) == turned


@pytest.mark.parametrize(
    ("name", "words"),
    [("steps", "whole number, ≥ 1"), ("clip_norm", "number, ≥ 0")],
)
def test_bounds_are_told_in_words(name: str, words: str):
    assert settings.spoken(serial.hints(serial.hints(Run)["loop"])[name]) == words
