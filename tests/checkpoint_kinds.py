"""Kinds of checkpoint that people have, as files and folders of the right names and shapes without a weight in them."""

import inspect
import json
from dataclasses import dataclass

import diffusers
import transformers

from studio.catalog import families
from tests.models.original_layout import sparse

UNET, VAE = "model.diffusion_model.", "first_stage_model.encoder.conv_in.weight"
ATTENDS = "1.transformer_blocks.0.attn2.to_k.weight"
FIRST, LATENT = (320, 4, 3, 3), "input_blocks.0.0.weight"
CLIP_1 = "cond_stage_model.transformer.text_model.embeddings.position_embedding.weight"
CLIP_2 = "cond_stage_model.model.positional_embedding"
CLIP_XL = (
    "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight",
    "conditioner.embedders.1.model.ln_final.weight",
)


@dataclass(frozen=True)
class Kind:
    """A kind: how it is made in an empty folder, what is said of it, and whether it loads (`said` is a regular expression)."""

    title: str
    make: object
    said: str
    loads: bool = True


def flat(*keys, **shapes):
    return dict.fromkeys(keys, (1,)) | shapes


def sd1(*more, inside=UNET, first=FIRST, **options):
    keys = {inside + LATENT: first, f"{inside}input_blocks.1.{ATTENDS}": (320, 768)}
    keys |= flat(VAE, CLIP_1) if inside and not options.pop("bare", False) else {}
    return file(keys | flat(*more), **options)


def sd2(*more, **options):
    keys = {UNET + LATENT: FIRST, f"{UNET}input_blocks.1.{ATTENDS}": (320, 1024)}
    return file(keys | flat(VAE, CLIP_2, *more), **options)


def sdxl(*more, **options):
    keys = {UNET + LATENT: FIRST, f"{UNET}input_blocks.4.{ATTENDS}": (640, 2048)}
    return file(keys | flat(VAE, *CLIP_XL, *more), **options)


def file(shapes, name="model.safetensors", metadata=None):
    return lambda folder: sparse(folder / name, shapes, metadata)


def written(name, text=""):
    def make(folder):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
        return folder / name

    return make


def cut(make):
    def shorter(folder):
        path = make(folder)
        with path.open("r+b") as opened:
            opened.truncate(path.stat().st_size - 1)
        return path

    return shorter


def config_of(part):
    """All settings of a part, as a published file has them."""
    if part.library == "transformers":
        return getattr(transformers, part.cls).config_class(**part.config).to_dict()
    parameters = inspect.signature(getattr(diffusers, part.cls).__init__).parameters.values()
    own = {p.name: p.default for p in parameters if p.default is not inspect.Parameter.empty}
    return {"_class_name": part.cls, **own, **part.config}


def folder_of(variant, weights="{name}.safetensors", pipeline="", **changes):
    """A diffusers folder of a published model: `component__setting` changes one."""

    def make(folder):
        card, _ = families.by_name(variant)
        found = card.variant(variant)
        index = {"_class_name": pipeline or card.pipeline}
        for part, settings in found.architecture.items():
            index[part] = [settings.library, settings.cls]
            own = {k.split("__")[1]: v for k, v in changes.items() if k.startswith(f"{part}__")}
            name = "scheduler_config.json" if part == "scheduler" else "config.json"
            written(f"{part}/{name}", json.dumps(config_of(settings) | own, default=str))(folder)
            if part != "scheduler":
                stem = "model" if settings.library == "transformers" else "diffusion_pytorch_model"
                path = folder / part / weights.format(name=stem)
                sparse(path, {"w": (1,)}) if path.suffix == ".safetensors" else path.write_bytes(b"")
            if part.startswith("text_encoder"):
                tokenizer = part.replace("text_encoder", "tokenizer")
                index[tokenizer] = ["transformers", "CLIPTokenizer"]
                written(f"{tokenizer}/tokenizer.json", "{}")(folder)
        for told, value in found.tells.items():
            if told.startswith("index."):
                index[told.removeprefix("index.")] = value
        written("model_index.json", json.dumps(index))(folder)
        return folder

    return make


def without(make, *names):
    def fewer(folder):
        path = make(folder)
        for name in names:
            (folder / name).unlink()
        return path

    return fewer


def cached(make):
    """A model in the hub's cache, by the folder that the cache gives it."""

    def made(folder):
        top = folder / "models--owner--name"
        (top / "snapshots" / "abc").mkdir(parents=True)
        written("refs/main", "abc")(top)
        make(top / "snapshots" / "abc")
        return top

    return made


def run(folder):
    written("run/events.jsonl")(folder)
    return written("run/config.json", json.dumps({"method": {"kind": "dreambooth", "model": "sdxl"}}))(
        folder
    ).parent


def finetuned(folder):
    """A run that exported a whole model."""
    found = run(folder)
    (found / "export" / "merged").mkdir(parents=True)
    folder_of("sdxl")(found / "export" / "merged")
    return found


def finetuned_twice(folder):
    found = finetuned(folder)
    (found / "export" / "other").mkdir()
    folder_of("sdxl")(found / "export" / "other")
    return found


def named(text):
    return lambda folder: text


V = {"modelspec.prediction_type": "v"}
EPSILON = {"modelspec.prediction_type": "epsilon"}
JOINT = "joint_blocks.0.context_block.adaLN_modulation.1.weight"
FLUX = "double_blocks.0.img_mod.lin.weight"
DEV = "guidance_in.in_layer.weight"
XL = "sdxl"

FILES = [
    Kind("SD 1.5", sd1(), "sd15.*epsilon"),
    Kind("SD 1.5, old names of CLIP (no `text_model.`)", sd1(CLIP_1.replace("text_model.", "")), "sd15"),
    Kind("SD 1.5 that says v in modelspec", sd1(metadata=V), "sd15.*v_prediction"),
    Kind("SD 1.5 without autoencoder and text encoder", sd1(bare=True), "missing vae, text_encoder"),
    Kind("SD 1.5 inpainting", sd1(first=(320, 9, 3, 3)), "9 input channels.*inpainting", loads=False),
    Kind("InstructPix2Pix", sd1(first=(320, 8, 3, 3)), "8 input channels", loads=False),
    Kind("SD 1.5 U-Net alone, original names", sd1(inside=""), "sd15.*missing vae, text_encoder"),
    Kind(
        "SD 1.5 U-Net alone, diffusers' names",
        file({"down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight": (320, 768)}),
        "sd15.*missing vae, text_encoder",
    ),
    Kind("SD 2.1", sd2(), "sd21.*v_prediction.*--parts.prediction epsilon says otherwise"),
    Kind("SD 2 that says epsilon in modelspec", sd2(metadata=EPSILON), "sd21.*predicts epsilon"),
    Kind("SDXL", sdxl(), "sdxl.*epsilon"),
    Kind("SDXL with v_pred and ztsnr", sdxl("v_pred", "ztsnr"), "v_prediction with zero terminal SNR"),
    Kind("SDXL that says v in modelspec", sdxl(metadata=V), "sdxl.*v_prediction"),
    Kind(
        "SDXL that predicts something else", sdxl(metadata={"modelspec.prediction_type": "x0"}), "'x0'", False
    ),
    Kind("SDXL, v on EDM noise levels", sdxl("edm_vpred.sigma_max"), "predicts v on EDM", loads=False),
    Kind("Playground 2.5", sdxl("edm_mean", "edm_std"), "Playground 2.5", loads=False),
    Kind(
        "SDXL refiner",
        file(
            {f"{UNET}input_blocks.4.{ATTENDS}": (768, 1280)}
            | flat("conditioner.embedders.0.model.ln_final.weight")
        ),
        "the SDXL refiner",
        loads=False,
    ),
    Kind("SD3 medium", file(flat(UNET + JOINT)), "^sd3;.*missing vae, text_encoder, text_encoder_2"),
    Kind(
        "SD3.5 medium", file(flat(UNET + JOINT, f"{UNET}joint_blocks.0.x_block.attn2.qkv.weight")), "^sd35;"
    ),
    Kind(
        "SD3.5 large", file(flat(UNET + JOINT, f"{UNET}joint_blocks.37.x_block.mlp.fc1.weight")), "sd35-large"
    ),
    Kind("FLUX.1 dev, transformer alone", file(flat(FLUX, DEV)), "flux-dev.*missing vae"),
    Kind("FLUX.1 schnell, with a prefix (ComfyUI)", file(flat(UNET + FLUX)), "flux-schnell.*missing vae"),
    Kind(
        "FLUX.1 Fill",
        file({FLUX: (1,), DEV: (1,), "img_in.weight": (3072, 384)}),
        "flux-fill-dev; predicts flow",
    ),
    Kind("Chroma", file(flat("distilled_guidance_layer.in_proj.bias")), "chroma; predicts flow", loads=True),
    Kind("a ControlNet", file(flat("controlnet_cond_embedding.conv_in.weight")), "is a ControlNet", False),
    Kind("an autoencoder", file(flat("encoder.conv_in.weight")), "autoencoder.*--parts.vae", loads=False),
    Kind("a T5", file(flat("encoder.block.0.layer.0.SelfAttention.k.weight")), "--parts.text-encoder", False),
    Kind("a LoRA", file(flat("lora_unet_x.lora_up.weight")), "--artifact", loads=False),
    Kind("an IP-Adapter", file(flat("ip_adapter.1.to_k_ip.weight")), "--artifact", loads=False),
    Kind("FLUX.1 in scaled fp8", file(flat(FLUX, "x.scale_weight")), "quantized weights", loads=False),
    Kind("one of several shards", file(flat(FLUX), "a-00001-of-00003.safetensors"), "give the folder", False),
    Kind("a file that is cut off", cut(sd1()), "not a whole safetensors file", loads=False),
    Kind("SD 1.5, `.SAFETENSORS`", sd1(name="model.SAFETENSORS"), "sd15"),
    Kind("a pickle", written("model.ckpt"), "is a pickle", loads=False),
    Kind("GGUF", written("model.gguf"), "is a GGUF file", loads=False),
    Kind("a page of the hub", named("https://huggingface.co/owner/name"), "give.*owner/name", loads=False),
    Kind("another web address", named("https://example.org/model.safetensors"), "download the file", False),
]
EDM = "EDMEulerScheduler"
FOLDERS = [
    *(Kind(v.title, folder_of(v.name), v.name) for card in families.cards().values() for v in card.variants),
    Kind("SDXL, fp16 files alone", folder_of(XL, "{name}.fp16.safetensors"), "weights the fp16 files"),
    Kind("SDXL, `.bin` alone", folder_of(XL, "{name}.bin"), "pickles", loads=False),
    Kind("SDXL in the hub's cache (`models--x--y`)", cached(folder_of(XL)), "sdxl"),
    Kind("SDXL, predicts v", folder_of(XL, scheduler__prediction_type="v_prediction"), "v_prediction"),
    Kind("SDXL on EDM noise levels", folder_of(XL, scheduler___class_name=EDM), "EDM noise levels", False),
    Kind("SD 1.5 inpainting, plain pipeline", folder_of("sd15", unet__in_channels=9), "9 input", False),
    Kind("InstructPix2Pix, plain pipeline", folder_of("sd15", unet__in_channels=8), "8 input", False),
    Kind("LCM", folder_of("sd15", unet__time_cond_proj_dim=256), "time_cond_proj_dim", loads=False),
    Kind(
        "SD3 that says epsilon",
        folder_of("sd3", scheduler__prediction_type="epsilon"),
        "flow matching",
        False,
    ),
    Kind("SDXL that says flow", folder_of(XL, scheduler__prediction_type="flow_prediction"), "flow", False),
    Kind("no vocabulary", without(folder_of(XL), "tokenizer_2/tokenizer.json"), "no vocabulary", False),
    Kind(
        "no weights of a part",
        without(folder_of("sd15"), "vae/diffusion_pytorch_model.safetensors"),
        "vae has no weights",
        False,
    ),
    Kind(
        "a broken index", lambda folder: written("model_index.json", "{")(folder).parent, "is broken", False
    ),
    Kind("an empty index", lambda folder: written("model_index.json")(folder).parent, "is broken", False),
    Kind("another pipeline", folder_of("sd15", pipeline="KandinskyPipeline"), "KandinskyPipeline", False),
    Kind("a run that trained an adapter", run, r"is a run.*--artifact.*--start.*\(sdxl\) to --model", False),
    Kind("a run that exported a whole model", finetuned, "^sdxl; predicts epsilon"),
    Kind("a run that exported two", finetuned_twice, "exported 2 whole models; give one of them", False),
    Kind("a LoRA's folder", lambda f: written("adapter_config.json", "{}")(f).parent, "--artifact", False),
    Kind("a U-Net's folder", lambda f: folder_of("sd15")(f) / "unet", "one part of a model", False),
    Kind("a folder of checkpoints", lambda f: sd1()(f).parent, "no model_index.json", False),
]
KINDS = [*FILES, *FOLDERS]
