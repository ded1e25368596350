"""The plain recipe to compare with: DreamBooth-LoRA steps as diffusers' example script takes them.

Follows `examples/dreambooth/train_dreambooth_lora.py` of diffusers: a DataLoader over the pictures with torchvision
transforms, autoencoder and text encoder run in every step, PEFT LoRA on the attention projections, AdamW, gradient
clipping, Accelerate. Written from the public interfaces of diffusers, peft, torchvision and accelerate alone.
"""

# diffusers' from_config and configs are typed as tuples and dicts, torchvision's Compose as taking and giving pictures.
# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportReturnType=false

from collections.abc import Iterator
from pathlib import Path

import torch
import torch.nn.functional as F
from accelerate import Accelerator
from diffusers import AutoencoderTiny, DDPMScheduler, StableDiffusionPipeline
from diffusers.optimization import get_scheduler
from diffusers.training_utils import cast_training_params
from jaxtyping import Float
from peft import LoraConfig
from PIL import Image
from PIL.ImageOps import exif_transpose
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

TARGETS = ["add_k_proj", "add_v_proj", "to_k", "to_q", "to_v", "to_out.0"]
"""Layers with an adapter (diffusers' example)."""


class Pictures(Dataset[dict[str, Tensor]]):
    """The example's dataset: pictures of a folder, opened once, transformed and tokenized at every access."""

    def __init__(self, folder: Path, prompt: str, pipeline: StableDiffusionPipeline, size: int) -> None:
        self._pictures = [Image.open(path) for path in sorted(folder.glob("*.png"))]
        self._prompt, self._tokenizer = prompt, pipeline.tokenizer
        self._transform = transforms.Compose(
            [
                transforms.Resize(size, interpolation=transforms.InterpolationMode.BILINEAR),
                transforms.CenterCrop(size),
                transforms.ToTensor(),
                transforms.Normalize([0.5], [0.5]),
            ]
        )

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        picture = exif_transpose(self._pictures[index])
        tokens = self._tokenizer(
            self._prompt,
            truncation=True,
            padding="max_length",
            max_length=self._tokenizer.model_max_length,
            return_tensors="pt",
        )
        return {"pixel_values": self._transform(picture.convert("RGB")), "input_ids": tokens.input_ids[0]}


class PlainRecipe:
    """DreamBooth-LoRA as the example script does it; `steps` yields after each optimizer step."""

    def __init__(
        self,
        pipeline: StableDiffusionPipeline,
        folder: Path,
        prompt: str,
        *,
        batch: int,
        size: int,
        rank: int,
    ) -> None:
        self.accelerator = Accelerator()
        self.vae, self.text_encoder, unet = pipeline.vae, pipeline.text_encoder, pipeline.unet
        self.noise = DDPMScheduler.from_config(pipeline.scheduler.config)
        for module in (self.vae, self.text_encoder, unet):
            module.requires_grad_(False).to(self.accelerator.device)
        lora = LoraConfig(r=rank, lora_alpha=rank, init_lora_weights="gaussian", target_modules=TARGETS)
        unet.add_adapter(lora)
        cast_training_params([unet], dtype=torch.float32)
        unet.train()
        self.trained = [p for p in unet.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(self.trained, lr=1e-4, weight_decay=1e-2)
        schedule = get_scheduler("constant", optimizer=optimizer, num_warmup_steps=0, num_training_steps=1000)
        # The example samples without replacement; repeating the pictures fills whole batches from any number of them.
        data = Pictures(folder, prompt, pipeline, size)
        repeated = torch.utils.data.ConcatDataset([data] * batch)
        loader = DataLoader(repeated, batch_size=batch, shuffle=True, num_workers=0)
        prepared = self.accelerator.prepare(unet, optimizer, loader, schedule)
        self.unet, self.optimizer, self.loader, self.schedule = prepared

    def steps(self) -> Iterator[float]:
        """Train without end; gives the loss of each step."""
        while True:
            for batch in self.loader:
                with self.accelerator.accumulate(self.unet):
                    yield self._step(batch)

    def _step(self, batch: dict[str, Tensor]) -> float:
        latents = self._encode(batch["pixel_values"])
        noise = torch.randn_like(latents)
        count = self.noise.config["num_train_timesteps"]
        times = torch.randint(0, count, (len(latents),), device=latents.device).long()
        noisy = self.noise.add_noise(latents, noise, times)
        words = self.text_encoder(batch["input_ids"], return_dict=False)[0]
        predicted = self.unet(noisy, times, words, return_dict=False)[0]
        loss = F.mse_loss(predicted.float(), self._target(latents, noise, times).float(), reduction="mean")
        self.accelerator.backward(loss)
        self.accelerator.clip_grad_norm_(self.trained, 1.0)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()
        return loss.detach().item()

    def _encode(self, pixels: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b c y x"]:
        encoded = self.vae.encode(pixels)
        latents = encoded.latents if isinstance(self.vae, AutoencoderTiny) else encoded.latent_dist.sample()
        return latents * self.vae.config.scaling_factor

    def _target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        if self.noise.config["prediction_type"] == "v_prediction":
            return self.noise.get_velocity(latents, noise, times)
        return noise
