"""Multi-Concept Customization of Text-to-Image Diffusion.

Kumari, Zhang, Zhang, Shechtman, Zhu, CVPR 2023, arXiv 2212.04488.

Text reaches a latent diffusion model through cross-attention alone, of features f of the picture to features c of the text:

    Q = W_q f,   K = W_k c,   V = W_v c,   softmax(Q K^T / sqrt(d')) V        (section 3.2)

W_k and W_v, some 5 % of the weights, are what moves most when all of them are finetuned, and all that is trained here, whole:

    L = E[ w_t ||eps_theta(x_t, c, t) - eps||^2 ]                             (eq. 1)

of the subject's pictures, and as much of pictures of its class, so that the class word keeps its meaning.

Departures: the new word is a rare one of the tokenizer, as in DreamBooth, and its embedding stays. The class pictures are drawn
by the model, or a folder's; the paper finds them in LAION by their captions. Pictures are not resized at random. Joint training
of several subjects and the merging of trained ones (section 3.3) are left out. Transformers that attend to text and picture
jointly (SD3, FLUX) have no cross-attention: there the keys and values of the text move, which is what corresponds.
"""

from collections.abc import Sequence
from pathlib import Path

from torch import nn
from typing_extensions import override

from custom_diffusion.config import CustomDiffusion
from studio.adapters.build import attach
from studio.adapters.config import Full
from studio.adapters.metadata import Facts
from studio.backend.core import Backend
from studio.backend.rng import Rng
from studio.contracts.batch import Batch, Source
from studio.contracts.sampling import Output, Request
from studio.contracts.trainer import Group, Loss, Trainer
from studio.data.encoders import texts_of
from studio.models.build import load
from studio.models.denoising import Prompts
from studio.models.draw import draw
from studio.models.modes import evaluating
from studio.same_subject.objective import subject_and_prior
from studio.same_subject.subject import Subject
from studio.weights.export import export

CROSS = Full(only=("attn2.to_k", "attn2.to_v"))
JOINT = Full(only=("attn.add_k_proj", "attn.add_v_proj"))


def keys_and_values(denoiser: nn.Module) -> Full:
    """Which weights turn text into keys and values: of cross-attention, or of the text's half of joint attention."""
    joint = any(JOINT.only[0] in name for name, _ in denoiser.named_parameters())
    return JOINT if joint else CROSS


class CustomDiffusionTrainer(Trainer):
    """DreamBooth's loss, on the keys and values of the text."""

    def __init__(self, config: CustomDiffusion) -> None:
        """Keep the settings."""
        self.config = config

    @override
    def setup(self, backend: Backend) -> list[Group]:
        self.family = load(self.config.model, backend, text=self.config.text)
        self.subject = Subject(self.config, self.family)
        name, denoiser = self.family.denoiser_name, self.family.denoiser
        self.trained = {name: denoiser}
        chosen = attach(keys_and_values(denoiser), self.trained)
        self.embed = Prompts(self.family, trains=False, store=texts_of(self.family, self.config.images))
        denoiser.train()
        return [Group(name=name, module=denoiser, names=chosen[name])]

    @override
    def source(self) -> Source:
        return self.subject.source()

    @override
    def held_out(self) -> Source | None:
        return self.subject.held_out()

    @override
    def loss(self, batch: Batch, rng: Rng) -> Loss:
        """Eq. 1 of the subject, plus that of its class."""
        terms = subject_and_prior(self.subject, batch, rng, embed=self.embed, trained=self.trained)
        prior = terms.get("loss_prior", terms["loss_instance"].new_zeros(()))
        return Loss(terms["loss_instance"] + self.config.prior_weight * prior, terms)

    @override
    def sample(self, request: Request, rng: Rng) -> Output:
        with evaluating(*self.trained.values()):
            return Output(images=draw(self.family, self.subject.asked(request), rng))

    @override
    def score(self, output: Output, request: Request) -> dict[str, float]:
        return self.subject.score(output, request, self.backend.device)

    @override
    def prompts(self) -> Sequence[str]:
        return self.subject.prompts()

    @override
    def export(self, folder: Path) -> list[Path]:
        facts = Facts(base_model=self.config.model)
        written = export(self.family, self.trained, folder, settings=self.config.export, facts=facts)
        return [one.path for one in written]
