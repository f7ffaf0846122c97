"""Video models of diffusers that are out of reach, and the true reason."""

from __future__ import annotations

_LOOP = "its pipeline runs a loop of its own for"

# by the class name of the transformer
REASONS: dict[str, str] = {
    "AnyFlowTransformer3DModel": "AnyFlow predicts between two timesteps, so that a step has no single noise level",
    "AnyFlowFARTransformer3DModel": "AnyFlow predicts between two timesteps, so that a step has no single noise level",
    "HeliosTransformer3DModel": f"{_LOOP} every chunk of the video, with history tokens before the video's",
    "Kandinsky6Transformer3DModel": "Kandinsky 6 carries audio and video streams",
    "Cosmos3OmniTransformer": "Cosmos 3 packs text, picture, sound and action tokens into one sequence, given as lists",
    "Kandinsky6SRTransformer3DModel": f"{_LOOP} every tile of the video",
    "WanAnimate2Transformer3DModel": "no adapter is written: the layout of its condition tokens has not been studied",
    "SanaWMTransformer3DModel": "no adapter is written: the layout of its camera and chunk conditions has not been studied",
    "MiniMaxH3Transformer3DModel": "no adapter is written: its layout has not been studied",
}

_APPENDED = (
    "it appends the tokens of its references to the video's; use LTX2Pipeline, LTX2ImageToVideoPipeline or LTX2ConditionPipeline"
)
_FORCING = "diffusion forcing gives every latent frame a scheduler and a step clock of its own"

# pipelines (and all of their subclasses) that cannot be followed, though their transformer can in other pipelines
PIPELINES: dict[str, str] = {
    "SkyReelsV2DiffusionForcingPipeline": _FORCING,
    "SkyReelsV2DiffusionForcingImageToVideoPipeline": _FORCING,
    "SkyReelsV2DiffusionForcingVideoToVideoPipeline": _FORCING,
    "LTXConditionPipeline": "it steps every token with a timestep of its own and appends the tokens of its conditions; "
    "use LTXPipeline or LTXImageToVideoPipeline",
    "LTXI2VLongMultiPromptPipeline": f"{_LOOP} every window of the video",
    "LTX2InContextPipeline": _APPENDED,
    "LTX2HDRPipeline": _APPENDED,
    "Cosmos2TextToImagePipeline": "it makes a picture, whose latents have no frames; use Cosmos2VideoToWorldPipeline",
    "LTX2DFRPipeline": "it generates the tokens of keyframes beside the video's",
    "LTX2DFRTemporalRefinePipeline": f"{_LOOP} every tile of the video",
    "ModularPipeline": "its loop is put together from blocks, without the methods that are followed; use the family's own "
    "pipeline, like WanPipeline",
}
