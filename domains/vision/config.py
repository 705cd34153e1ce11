"""What configures the vision domain: plain dataclasses, free of torch."""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from core.config import TransformerConfig


class Source(Enum):
    digits = "digits"  # scikit-learn's 1,797 handwritten digits, 8×8 pixels, in splits that are always the same
    folder = "folder"  # images in one sub-folder a class; the sub-folders name the classes
    fashion_mnist = "fashion_mnist"  # these four are torchvision's, downloaded once
    mnist = "mnist"
    cifar10 = "cifar10"
    cifar100 = "cifar100"
    timm = "timm"  # whatever timm.data.create_dataset knows by data.name, but for streams


class Augment(Enum):
    """What training images go through."""

    none = "none"
    affine = "affine"  # every other one turned, scaled and moved a little
    crop = "crop"  # mirrored by chance, and cut out of a padded copy
    rand = "rand"  # timm's: resized crops, RandAugment, random erasing


class OnError(Enum):
    """What to do with a file that is no image."""

    error = "error"
    skip = "skip"  # leave it out, and say so


@dataclass
class DataConfig:
    """Which images, and how they are shown to the model."""

    domain: str = "vision"
    source: Source = Source.digits
    path: str | None = None  # of a folder, or where downloads are kept
    name: str | None = None  # of a data set of timm, such as hfds/cifar10
    size: int | None = None  # pixels a side; that of the images themselves if None
    val_share: float = 0.1  # of the training images, where the data bring no validation split
    test_share: float = 0.2  # of all images, where the data bring no test split
    split_seed: int = 0  # of what is drawn; the same for every seed of training, so that seeds can be compared
    on_error: OnError = OnError.error  # what becomes of a file that is no image
    batch_size: int = 64  # images a step, on all devices together
    workers: int = 0  # processes that prepare batches; 0: the training itself
    augment: Augment = Augment.affine  # what training images go through
    mixup: float = 0.0  # α of Mixup (Zhang et al. 2018): two images laid over each other; 0 leaves it out
    cutmix: float = 0.0  # α of CutMix (Yun et al. 2019): a part of one in another


class Pool(Enum):
    """What stands for the whole image."""

    mean = "mean"  # of the patches, each normalised
    mean_then_norm = "mean_then_norm"  # timm's fc_norm
    token = "token"  # the class token
    attention = "attention"  # a learned query gathers the patches (timm's map, SigLIP)


class Stem(Enum):
    """How pixels become patches."""

    patch = "patch"  # one linear map of each patch
    conv = "conv"  # a few convolutions (Xiao et al. 2021): better on little data


@dataclass
class ModelConfig(TransformerConfig):
    """A ViT: `patch_size` is the side of a patch in pixels."""

    needs: ClassVar[frozenset[str]] = frozenset({"full"})  # of a mixer (core/config.py)
    domain: str = "vision"
    patch_size: int = 2  # pixels a side of what makes a token
    stem: Stem = Stem.patch  # how pixels become patches
    pool: Pool = Pool.mean  # what stands for the whole image
    class_token: bool = False  # a token that is no patch, for pool=token
    registers: int = 0  # further tokens that are no patches (Darcet et al. 2024)
    label_smoothing: float = 0.1  # share of the target that all classes get alike, in training
