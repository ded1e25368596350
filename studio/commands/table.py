"""All commands in one table: what each is for, where it is, and what its help says. No torch."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from studio.errors import StudioError, unknown

HELP = ("-h", "--help")


@dataclass(frozen=True, kw_only=True)
class Command:
    """A word of the command line.

    Attributes:
        summary: What it is for, in a few words.
        where: `module:function` that runs it, called as `function(argv, console)`; imported only then.
        usage: What follows its words.
        text: Help beside that, for a command whose flags do not tell all.
        explains: Whether it answers `--help` by itself, from its settings.
        verbs: Words that may follow, for a command that only leads to others.
        default: The verb that is meant when none is given.
    """

    summary: str
    where: str = ""
    usage: str = ""
    text: str = ""
    explains: bool = False
    verbs: "Mapping[str, Command]" = field(default_factory=dict[str, "Command"])
    default: str = ""


RUN = "RUN is a folder, or its name under runs/."
_WRITTEN = "--to FILE [--format kohya|comfy|diffusers] [--precision fp32|fp16|bf16]"
_WEIGHTS = {
    "inspect": ("what a file is: tool, kind, model, layers, rank, alpha, trigger, who reads it", "FILE [--model MODEL]"),
    "convert": ("the same adapter in another dialect", f"FILE {_WRITTEN} [--model MODEL]"),
    "resize": ("the nearest LoRA of a rank, or of a share of the change to keep",
               f"FILE (--rank N | --keep 0.95) {_WRITTEN} [--model MODEL]"),
    "merge": ("several as one LoRA: exact, with the sum of their ranks, or the nearest of --rank",
              f"FILE:0.7 FILE ... {_WRITTEN} [--rank N] [--model MODEL]"),
    "extract": ("the difference of two models as a LoRA", f"BASE TUNED {_WRITTEN} [--rank 16]"),
    "compare": ("how far two adapters are apart: layers in common, largest and relative difference",
                "FILE FILE [--model MODEL]"),
}  # fmt: skip
"""What `studio weights` does, and what follows its words."""
COMMANDS: Mapping[str, Command] = {
    "demo": Command(
        summary="the main job on sample pictures: train, measure, report",
        where="studio.demo:demo",
        usage="[--name NAME] [--output runs] [flags of studio train dreambooth]",
        text="Trains DreamBooth with LoRA on five sample pictures, then draws and scores it against the untrained model.\n"
        "Takes some minutes on a CPU and downloads nothing. Ctrl-C stops after the present step, saved.",
    ),
    "train": Command(
        summary="train a method: studio train METHOD --data DIR [...]",
        where="studio.commands.training:train",
        text="METHOD may be yours: an installed one, a dotted path (my_package.my_method), or a folder or file here.\n"
        "Ctrl-C stops after the present step, saved; a second one stops at once.",
        explains=True,
    ),
    "sample": Command(
        summary="draw pictures with a model and trained artifacts",
        where="studio.commands.use_cases:sample",
        explains=True,
    ),
    "eval": Command(
        summary="measure an artifact or a model",
        verbs={
            "subject": Command(
                summary="how well an artifact draws its subject, against the model it started from",
                where="studio.commands.evaluation:subject",
                explains=True,
            ),
            "dreambench": Command(
                summary="30 subjects x 25 prompts x 4 pictures: DINO, CLIP-I, CLIP-T, PRES, DIV",
                where="studio.commands.evaluation:dreambench",
                explains=True,
            ),
            "robustness": Command(
                summary="a classifier under corruptions, shifts and attacks, and whether the attacks can be trusted",
                where="studio.commands.robustness:robustness",
                explains=True,
            ),
            "nullspace": Command(
                summary="what a vision transformer cannot see, as numbers and pictures",
                where="studio.commands.robustness:nullspace",
                explains=True,
            ),
            "vlm": Command(
                summary="a CLIP or SigLIP: names, new names, retrieval, composition, shifts, and what finetuning took",
                where="studio.commands.vlm:vlm",
                explains=True,
            ),
        },
    ),
    "export": Command(
        summary="write a run's weights in another format",
        where="studio.commands.use_cases:export",
        usage="RUN [--formats diffusers kohya comfy peft merged single-file] [--precision fp32|fp16|bf16] [...]",
        text="Writes the weights of a run's newest checkpoint again, into RUN/export; each file is read back and compared.\n"
        f"{RUN} Without --formats those of the run are written; methods that are no\n"
        "adapters, such as jedi, have one format of their own. A run that stopped early is exported as far as it came.\n"
        "--push-to-hub OWNER/NAME publishes the result with a model card. studio export RUN --help lists all settings.",
        explains=True,
    ),
    "data": Command(
        summary="look at training data, caption it, make sets",
        verbs={
            "check": Command(
                summary="what can be trained on, and what cannot and why: DIR of pictures, or FILE.json of conversations",
                where="studio.commands.data:check",
                usage="DIR [--size 512] [settings of images] | FILE.json [--pictures DIR]",
                explains=True,
            ),
            "caption": Command(
                summary="write NAME.txt beside each picture without one",
                where="studio.commands.data:caption",
                usage="DIR [--model captioner-tiny] [...]",
                explains=True,
            ),
            "sets": Command(
                summary="make same-subject sets with a text-to-image model",
                where="studio.commands.data:sets",
                usage="--subjects NAME ... [...]",
                explains=True,
            ),
        },
    ),
    "plan": Command(
        summary="what a run would need: on this machine from real steps, or on any GPU without it",
        where="studio.commands.planning:plan",
        usage="METHOD [flags of studio train METHOD] [--gpu 12GiB|auto] [--ram 16GiB]",
        text="Takes a few real steps at the largest shape, draws one preview, saves and exports once, and tells time, memory\n"
        "and disk of the whole run. With --gpu SIZE nothing is computed, and no GPU, weights, download or data are needed:\n"
        "the same steps run on a simulated device that counts their memory (without --data for one picture at the model's\n"
        "size), and the cheapest flags that make the run fit are told. auto is what this machine's GPU has free; --ram SIZE\n"
        "looks at the machine's own memory too. Exit code 1 if it does not fit.",
        explains=True,
    ),
    "runs": Command(
        summary="list, show, report and verify runs",
        default="list",
        verbs={
            "list": Command(
                summary="runs under DIR (runs/), newest first, with their status",
                where="studio.commands.runs:listed",
                usage="[DIR]",
            ),
            "show": Command(
                summary="settings and events", where="studio.commands.runs:show", usage="RUN", text=RUN
            ),
            "report": Command(
                summary="write RUN/report.html anew",
                where="studio.commands.runs:report",
                usage="RUN",
                text=RUN,
            ),
            "verify-resume": Command(
                summary="show that resuming is exact",
                where="studio.commands.runs:verify",
                usage="RUN [--steps 6] [--at 3]",
                text="Trains the first --steps steps of a run's settings straight, and again with a stop and a resume after --at\n"
                f"steps; both in a temporary folder. Exit code 1 if any tensor differs. {RUN}",
            ),
        },
    ),
    "models": Command(
        summary="list the embedded models, look into a file or folder, or train one anew",
        default="list",
        verbs={
            "list": Command(summary="embedded models and their sizes", where="studio.commands.house:models"),
            "inspect": Command(
                summary="what a file, folder or name is: family, variant, prediction, parts, what is missing",
                where="studio.commands.house:inspect",
                usage="MODEL",
                text="Reads names, shapes and settings alone, and loads nothing. Exit code 1 for what cannot be loaded, with the reason.",
            ),
            "pretrain": Command(
                summary="train one of them anew: tiny-autoencoder, tiny-clip, tiny-dit, tiny-t2i, tiny-vit",
                where="trainers.pretrain.command:command",
                usage="NAME [--output runs] [--steps N] [--install DIR] [...]",
                explains=True,
            ),
        },
    ),
    "weights": Command(
        summary="look into files of LoRAs and their like, convert, resize, merge, extract, compare",
        text="FILE is a LoRA, DoRA, LoHa or LoKr of any tool (docs/dialects.md). Formats: kohya (A1111, Forge, ComfyUI), comfy,\n"
        "diffusers. --model NAME, FOLDER or FILE is the base; without it the published model that the file fits.",
        verbs={
            verb: Command(summary=summary, where=f"studio.commands.weights:{verb}", usage=usage)
            for verb, (summary, usage) in _WEIGHTS.items()
        },
    ),
    "decor": Command(
        summary="look into a prompt's embedding and keep projections of it",
        text="docs/edits.md explains them.",
        verbs={
            "components": Command(
                summary="what a prompt's embedding is made of, as a table and a plot",
                where="trainers.decor.command:components",
                explains=True,
            ),
            "suggest": Command(
                summary="words of most training captions that a new prompt does not have",
                where="trainers.decor.command:suggest",
                explains=True,
            ),
            "save": Command(
                summary="keep a projector with an adapter",
                where="trainers.decor.command:save",
                explains=True,
            ),
        },
    ),
    "adapters": Command(
        summary="the table of adapters, measured here: size, cost, readers",
        where="studio.commands.house:adapters",
        usage="[--rounds 9]",
        text="Measures every adapter on four projections here and now: parameters, time of a step, exactness, readers.",
    ),
    "reproduce": Command(
        summary="make a method's table of evidence again",
        where="studio.commands.evaluation:reproduce",
        usage="METHOD [...]",
        explains=True,
    ),
    "new": Command(
        summary="begin a method of your own, with files that run",
        verbs={
            "method": Command(
                summary="write settings, trainer, case and test of a method that runs, to be changed",
                where="studio.commands.new:method",
                usage="NAME [--outside]",
                text="In a checkout: trainers/NAME, and its tests. With --outside: ./NAME, a package of your own, which trains in this\n"
                "folder as studio train NAME; CONTRIBUTING.md says how others get it. Nothing is written over.",
            ),
        },
    ),
    "ui": Command(
        summary="open the app in the browser: train, watch, sample, compare",
        where="ui.command:command",
        explains=True,
    ),
    "doctor": Command(
        summary="what is installed and what works here",
        where="studio.commands.house:doctor",
        text="What is installed and which kernels work on this machine, as text to paste into an issue.",
    ),
}
"""Every command by its word."""


@dataclass(frozen=True)
class Asked:
    """A command that was asked for: its words, what it is, and the arguments behind its words."""

    words: tuple[str, ...]
    command: Command
    rest: list[str]

    @property
    def wants_help(self) -> bool:
        """Whether its help is to be printed, rather than the command be run or explain itself."""
        if not any(each in HELP for each in self.rest):
            return False
        first = self.rest[0] in HELP
        return not self.command.where or not self.command.explains or (first and bool(self.command.text))


def find(argv: Sequence[str]) -> Asked:
    """The command that words ask for.

    Raises:
        StudioError: There is no such command or verb; the nearest is offered.
    """
    words, rest = [argv[0]], list(argv[1:])
    if argv[0] not in COMMANDS:
        raise unknown("command", argv[0], COMMANDS)
    found = COMMANDS[argv[0]]
    while found.verbs and not (rest and rest[0] in HELP):
        if not rest and not found.default:
            raise StudioError(
                f"studio {' '.join(words)} needs one of: {', '.join(found.verbs)}; --help explains them."
            )
        verb = rest.pop(0) if rest else found.default
        if verb not in found.verbs:
            raise unknown(f"{' '.join(words)} command", verb, found.verbs)
        words.append(verb)
        found = found.verbs[verb]
    return Asked(tuple(words), found, rest)
