"""A flag that does not exist: what is offered in its place does."""

import re

import pytest

from studio.catalog import methods
from studio.errors import StudioError
from studio.flags import flags, names
from studio.flags.elsewhere import ELSEWHERE

OTHERS = [
    "--reg_data_dir",
    "--network_dim",
    "--network_alpha",
    "--train_batch_size",
    "--max_train_epochs",
    "--learning_rate",
    "--unet_lr",
    "--optimizer_type",
    "--mixed_precision",
    "--xformers",
    "--cache_latents",
    "--shuffle_caption",
    "--noise_offset",
    "--min_snr_gamma",
    "--lr_warmup_steps",
    "--pretrained_model_name_or_path",
    "--instance_data_dir",
    "--instance_prompt",
    "--prior_loss_weight",
    "--checkpointing_steps",
    "--report_to",
    "--num_cpu_threads_per_process",
    "--save_model_as",
    "--no-steps",
    "--text_encodr",
    "--batch-size",
    "--steps",
    "--loop.epoch",
    "--no-data",
]


def offered(method: str, *typed: str) -> list[str]:
    with pytest.raises(StudioError, match="has no flag") as refused:
        flags.parse_run(method, ["--data", ".", *typed])
    said = str(refused.value).removesuffix(f"All flags: studio train {method} --help")
    return re.findall(r"--[a-z0-9.-]*[a-z0-9]", said.partition("has no flag")[2])[1:]


@pytest.mark.parametrize("typed", OTHERS)
def test_what_is_offered_for_a_wrong_flag_exists(typed: str):
    every = set(names.every(flags.run_class(methods.card("dreambooth"))))
    assert set(offered("dreambooth", typed, "1")) <= every


@pytest.mark.parametrize(
    ("typed", "here"),
    [
        ("--network_dim", ["--adapter.rank"]),
        ("--reg_data_dir", ["--prior", "--prior.folder"]),
        ("--lr", ["--optim.lr"]),
        ("--max_train_epochs", ["--loop.epochs"]),
    ],
)
def test_flags_of_other_tools_are_known(typed: str, here: list[str]):
    assert offered("dreambooth", typed, "1") == here


def test_every_name_of_other_tools_leads_to_a_flag_of_some_method():
    cards = [methods.card(name) for name in methods.ours()]
    every = {flag for card in cards for flag in names.every(flags.run_class(card))}
    lost = {
        theirs: here
        for theirs, here in ELSEWHERE.items()
        if not {w for w in here.split() if w[0] == "-"} <= every
    }
    assert lost == {}


def test_only_switches_can_be_negated():
    run, _ = flags.parse_run("dreambooth", ["--data", ".", "--no-text-encoder", "--hardware.no-tf32"])
    assert not run.method.text_encoder
    with pytest.raises(StudioError, match="has no flag --no-seed"):
        flags.parse_run("dreambooth", ["--data", ".", "--no-seed"])
