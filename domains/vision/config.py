"""Configuration of the vision domain: plain dataclasses, free of torch."""

from dataclasses import dataclass
from enum import Enum
from typing import ClassVar

from core.config import TransformerConfig


class Source(Enum):
    digits = "digits"  # scikit-learn's 1,797 handwritten digits, 8×8 pixels, in splits that are always the same
    folder = "folder"  # a sub-folder of images for each class, named like the class
    fashion_mnist = "fashion_mnist"  # these four are torchvision's, downloaded once
    mnist = "mnist"
    cifar10 = "cifar10"
    cifar100 = "cifar100"
    timm = "timm"  # every data set of timm.data.create_dataset, by data.name, except streams


class Augment(Enum):
    """Augmentation of training images."""

    none = "none"
    affine = "affine"  # half of them rotated, scaled and translated a little
    crop = "crop"  # random horizontal flips, and random crops of a padded image
    rand = "rand"  # timm's: resized crops, RandAugment, random erasing


class OnError(Enum):
    """The reaction to a file that is no image."""

    error = "error"
    skip = "skip"  # leave it out, with a warning


@dataclass
class DataConfig:
    """The images, and their preparation."""

    domain: str = "vision"
    source: Source = Source.digits
    path: str | None = None  # of a folder, or of downloads
    name: str | None = None  # of a data set of timm, such as hfds/cifar10
    size: int | None = None  # pixels a side; that of the images themselves if None
    val_share: float = 0.1  # of the training images, where the data bring no validation split
    test_share: float = 0.2  # of all images, where the data bring no test split
    split_seed: int = 0  # of drawn splits; independent of the training seed, so that runs of several seeds compare
    on_error: OnError = OnError.error  # what to do with a file that is no image
    batch_size: int = 64  # images a step, on all devices together
    workers: int = 0  # processes that prepare batches; 0: the training itself
    augment: Augment = Augment.affine  # augmentation of training images
    mixup: float = 0.0  # α of Mixup (Zhang et al. 2018): two images blended; 0 for none
    cutmix: float = 0.0  # α of CutMix (Yun et al. 2019): a part of one in another


class Pool(Enum):
    """The pooling of patches into one vector for the whole image."""

    mean = "mean"  # of the patches, each normalised
    mean_then_norm = "mean_then_norm"  # timm's fc_norm
    token = "token"  # the class token
    attention = "attention"  # a learned query attends to the patches (timm's map, SigLIP)


class Stem(Enum):
    """The patch embedding."""

    patch = "patch"  # one linear map of each patch
    conv = "conv"  # a few convolutions (Xiao et al. 2021): better on little data


@dataclass
class ModelConfig(TransformerConfig):
    """A ViT: `patch_size` is the side of a patch in pixels."""

    needs: ClassVar[frozenset[str]] = frozenset({"full"})  # of a mixer (core/config.py)
    domain: str = "vision"
    patch_size: int = 2  # pixels along a side of a patch
    stem: Stem = Stem.patch  # how pixels become patches
    pool: Pool = Pool.mean  # how patches become one vector
    class_token: bool = False  # add a class token, for pool=token
    reg_tokens: int = 0  # register tokens (Darcet et al. 2024)
    label_smoothing: float = 0.1  # share of the target that is spread over all classes, in training
