"""Vision transformers of timm, every weight of theirs drawn anew, against adapters of ours with those weights."""

import pytest
import timm
import torch

from core.convert import export_state_dict
from domains.vision.convert import from_timm, timm_table

DEPTH, CLASSES = 2, 5
MODELS = {  # name -> changes that make it small
    "test_vit": {},
    "test_vit2": {},
    "vit_base_patch16_siglip_224": {"img_size": 48, "embed_dim": 96},
    "vit_tiny_patch16_224": {"img_size": 48},
    "vit_little_patch16_reg4_gap_256": {"img_size": 48, "embed_dim": 80},
    "vit_small_patch14_reg4_dinov2": {"img_size": 42, "embed_dim": 96},
    "deit3_small_patch16_224": {"img_size": (48, 32), "embed_dim": 96},
    "vit_base_patch32_clip_224": {"img_size": 96, "embed_dim": 96},
    "eva02_tiny_patch14_224": {"img_size": 42, "ref_feat_shape": 3},
    "vit_medium_patch16_rope_reg1_gap_256": {"img_size": 48, "embed_dim": 96, "ref_feat_shape": 3},
    "vit_small_patch16_rope_224": {"img_size": (48, 80), "embed_dim": 96},
    "vit_small_patch16_rope_ape_224": {"img_size": (48, 80), "embed_dim": 96},
    "vit_small_patch16_rope_mixed_224": {"img_size": (80, 48), "embed_dim": 96},
    "vit_small_patch16_rope_mixed_ape_224": {"img_size": (48, 80), "embed_dim": 96},
    "vit_small_patch16_dinov3": {"img_size": (48, 80), "embed_dim": 96},
}


pytestmark = pytest.mark.filterwarnings("ignore:patches of")  # the images are small so that the models are


@pytest.fixture(params=MODELS)
def theirs(request, randomise):
    changes = MODELS[request.param]
    return randomise(timm.create_model(request.param, depth=DEPTH, num_classes=CLASSES, **changes))


def images(theirs, count=3):
    rng = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, *theirs.patch_embed.img_size, generator=rng)


def logits(theirs, pixels):
    mean, std = (torch.tensor(theirs.pretrained_cfg[name]).view(-1, 1, 1) for name in ("mean", "std"))
    return theirs((pixels - mean) / std)


@torch.no_grad()
def test_logits_are_timms_and_go_back(theirs):
    pixels = images(theirs)
    want = logits(theirs, pixels)
    assert want.std() > 0.1
    ours = from_timm(theirs).eval()
    torch.testing.assert_close(ours({"images": pixels}), want, atol=1e-5, rtol=0)

    for parameter in theirs.parameters():
        parameter.zero_()
    theirs.load_state_dict(export_state_dict(ours, timm_table(theirs)), strict=True)
    torch.testing.assert_close(logits(theirs, pixels), want, atol=1e-5, rtol=0)
