"""The same on studio-tiny-dit: JeDi's coupled attention in a transformer, against DreamBooth on that transformer."""

from studio.evidence.subjects import Variant
from trainers.jedi.reproduce import QUIET, Shown, recipe

ARTIFACT, MODEL = "jedi-tiny-dit", "studio-tiny-dit"
ARTIFACTS = {
    "jedi-1": Shown(artifact=ARTIFACT, references=1, guidance=1.5),
    "jedi-3": Shown(artifact=ARTIFACT, references=3, guidance=1.5),
    "jedi-3-shuffled": Shown(artifact=ARTIFACT, references=3, guidance=1.5, shuffled=True),
}
DREAMBOOTH = {"dreambooth-lora": Variant(preset="tiny", values={**QUIET, "method.model": MODEL})}
RECIPE = recipe(ARTIFACTS, DREAMBOOTH)
