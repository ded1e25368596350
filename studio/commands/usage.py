"""What `studio --help` and the help of commands with verbs say. No torch."""

from studio.catalog import methods

COMMANDS = {
    "demo": "the main job on sample pictures: train, measure, report",
    "train": "train a method: studio train METHOD --data DIR [...]",
    "sample": "draw pictures with a model and trained artifacts",
    "eval": "measure an artifact: studio eval subject|dreambench|robustness|nullspace|vlm ...",
    "export": "write a run's weights in another format",
    "data": "look at training data, caption it, make sets: studio data check|caption|sets ...",
    "plan": "what a run would need, from one real step",
    "runs": "list, show, report and verify runs",
    "models": "list the embedded models, or train them anew",
    "decor": "look into a prompt's embedding: components, suggest, save",
    "adapters": "the table of adapters, measured here: size, cost, readers",
    "reproduce": "make a method's table of evidence again",
    "ui": "open the app in the browser: train, watch, sample, compare",
    "doctor": "what is installed and what works here",
}
"""Commands, and what each is for."""
VERBS = {
    "demo": """
studio demo [--name NAME] [--output runs] [flags of studio train dreambooth]

Trains DreamBooth with LoRA on five sample pictures, then draws and scores it against the untrained model.
Takes some minutes on a CPU and downloads nothing. Ctrl-C stops after the present step, saved.
""",
    "eval": """
studio eval subject     how well an artifact draws its subject, against the model it started from
studio eval dreambench  30 subjects x 25 prompts x 4 pictures: DINO, CLIP-I, CLIP-T, PRES, DIV
studio eval robustness  a classifier under corruptions, shifts and attacks, and whether the attacks can be trusted
studio eval nullspace   what a vision transformer cannot see, as numbers and pictures
studio eval vlm         a CLIP or SigLIP: names, new names, retrieval, composition, shifts, and what finetuning took

Add --help to one of them for its settings.
""",
    "export": """
studio export RUN [--formats diffusers kohya comfy peft merged] [--precision fp32|fp16|bf16] [...]

Writes the weights of a run's newest checkpoint again, into RUN/export; each file is read back and compared.
RUN is a folder, or its name under runs/. Without --formats those of the run are written; methods that are no adapters,
such as jedi, have one format of their own. A run that stopped early is exported as far as it came.
--push-to-hub OWNER/NAME publishes the result with a model card. studio export RUN --help lists all settings.
""",
    "data": """
studio data check DIR       what can be trained on, and what cannot and why [--size 512] [settings of images]
studio data check FILE.json the same for conversations [--pictures DIR]
studio data caption DIR     writes NAME.txt beside each picture without one [--model captioner-tiny] [...]
studio data sets            makes same-subject sets with a text-to-image model: --subjects NAME ... [...]

Add --help to one of them for its settings.
""",
    "plan": """
studio plan METHOD [flags of studio train METHOD] [--memory-gib N]

Takes a few real steps at the largest shape, draws one preview, saves and exports once, and tells time, memory and
disk of the whole run. --memory-gib N checks against another machine's memory; exit code 1 if it does not fit.
""",
    "runs": """
studio runs [list [DIR]]       runs under DIR (runs/), newest first, with their status
studio runs show RUN           settings and events
studio runs report RUN         writes RUN/report.html anew
studio runs verify-resume RUN  shows that resuming is exact [--steps 6] [--at 3]

RUN is a folder, or its name under runs/.
""",
    "models": """
studio models [list]           embedded models and their sizes
studio models pretrain NAME    trains one of them anew: tiny-autoencoder, tiny-clip, tiny-dit, tiny-t2i, tiny-vit [--help]
""",
    "decor": """
studio decor components  what a prompt's embedding is made of, as a table and a plot
studio decor suggest     words of most training captions that a new prompt does not have
studio decor save        keeps a projector with an adapter

Add --help to one of them for its settings; docs/edits.md explains them.
""",
    "adapters": """
studio adapters [--rounds 9]

Measures every adapter on four projections here and now: parameters, time of a step, exactness, readers.
""",
    "doctor": """
studio doctor

What is installed and which kernels work on this machine, as text to paste into an issue.
""",
}
"""Help of the commands that do not take their flags from one class of settings."""


def usage() -> str:
    """The text of `studio --help`."""
    lines = ["usage: studio COMMAND [...]", "", "Finetune and harden image models.", "", "commands:"]
    lines += [f"  {name:<10} {text}" for name, text in COMMANDS.items()]
    cards = [card for card in map(methods.card, methods.names()) if not card.hidden]
    lines += ["", "methods (studio train METHOD --help):"]
    lines += [f"  {c.name:<20} {c.summary}" for c in cards if c.trainer]
    lines += ["", "edits of sampling, without training (studio sample --edits NAME ...):"]
    lines += [f"  {c.name:<20} {c.summary}" for c in cards if not c.trainer]
    return "\n".join([*lines, "", "Every command takes --help, and --json for machines."])


def of_train() -> str:
    """The text of `studio train --help`."""
    cards = [card for card in map(methods.card, methods.names()) if not card.hidden and card.trainer]
    lines = [
        "usage: studio train METHOD [--preset NAME] [--config FILE] [settings of the method]",
        "       studio train --resume RUN [--loop.steps N] [--allow-changes]",
        "",
        "methods (studio train METHOD --help lists all settings with their sources):",
    ]
    lines += [f"  {card.name:<20} {card.summary}" for card in cards]
    return "\n".join([*lines, "", "Ctrl-C stops after the present step, saved; a second one stops at once."])


def of(command: str) -> str:
    """The help of a command, for those whose flags do not tell; empty for the others."""
    if command == "train":
        return of_train()
    text = VERBS.get(command, "").strip()
    return f"studio {command}: {COMMANDS[command].partition(':')[0]}\n\n{text}" if text else ""
