"""The names that settings may have, a line on each, and how a name of one's own is written."""

from __future__ import annotations

import re

from ticketsweep.errors import did_you_mean

FACTORY = "package.module:factory"
MODELS = {
    "lenet-300-100": "fully connected, 300 and 100 units (LeCun et al. 1998)",
    "fc-H1-H2-…": "fully connected, any hidden widths: fc-64, fc-500-500",
    "lenet-5": "2 convolutions, 3 linear layers, ReLU (LeCun 1998)",
    "conv-2": "2 convolutions, 3 linear layers (Ramanujan et al. 2020)",
    "conv-4": "4 convolutions, 3 linear layers (Ramanujan et al. 2020)",
    "conv-6": "6 convolutions, 3 linear layers (Ramanujan et al. 2020)",
    "conv-8": "8 convolutions, 3 linear layers (Ramanujan et al. 2020)",
    "resnet-20": "CIFAR ResNet, 20 layers (He et al. 2016, section 4.2)",
    "resnet-32": "CIFAR ResNet, 32 layers (He et al. 2016, section 4.2)",
    "resnet-56": "CIFAR ResNet, 56 layers (He et al. 2016, section 4.2)",
    "resnet18": "torchvision's; a 3x3 stem for images up to 64x64",
    "resnet50": "torchvision's; a 3x3 stem for images up to 64x64",
    "wide_resnet50_2": "torchvision's; a 3x3 stem for images up to 64x64",
    "vit_b_16": "torchvision's; patches of 4x4 for images up to 64x64",
    "vit_tiny": "small ViT for 32x32: 4x4 patches, 192 wide, 3 heads",
    "swin_t": "torchvision's; patches of 2x2 for images up to 64x64",
    FACTORY: "yours: f(input_shape=(C, H, W), classes=K) -> nn.Module",
}
DATASETS = {
    "digits": "scikit-learn's 1,797 grey 8x8 digits; no download",
    "mnist": "70,000 grey 28x28 digits, through torchvision",
    "fashion-mnist": "70,000 grey 28x28 clothes, through torchvision",
    "cifar10": "60,000 colour 32x32, 10 classes, through torchvision",
    "cifar100": "60,000 colour 32x32, 100 classes, through torchvision",
    "imagefolder:DIR": "DIR/train/CLASS/*.jpg, DIR/val/CLASS/*.jpg; streamed",
    "parquet:DIR": "Parquet files in Hugging Face's layout (image, label)",
    FACTORY: "yours: f() -> images, labels, test images, test labels",
}
GATES = {
    "gaussian": "clip(mu + sigma*eps, 0, 1), eps normal (CRBG, 2026)",
    "hard_concrete": "stretched, clipped binary concrete (Louizos et al. 2018)",
    "sigmoid": "sigmoid(s / temperature), annealed (Savarese et al. 2020)",
    "edge_popup": "highest scores, given density (Ramanujan et al. 2020)",
    "magnitude": "iterative pruning, rewinding (Frankle & Carbin 2019)",
    "random": "random mask of a given density: the floor to compare with",
}
CONTROLS = {
    "shuffled_mask": "the ticket's mask shuffled in each layer, its own weights",
    "reinitialized": "the ticket's mask, weights drawn afresh",
    "random_mask": "random weights, as many in each layer as the ticket keeps",
}
OBJECTIVES = {
    "val_accuracy": "accuracy of the hardened ticket on the validation split, mean over replicates",
    "joint_val_accuracy": "that with the weights as trained along with the gates",
    "retrained_val_accuracy": "that with the ticket's weights retrained",
    "loss": "validation loss of the hardened ticket",
    "sparsity": "share of prunable weights removed",
    "density": "share of prunable weights kept",
    "undecided": "share of gates strictly between closed and open when hardened",
    "stability": "mean chance-corrected overlap of tickets with the same initial weights",
}
# What the search must not look at, and what it may look at instead.
TEST_FIGURES = {
    "strong_accuracy": "val_accuracy",
    "joint_accuracy": "joint_val_accuracy",
    "retrained_accuracy": "retrained_val_accuracy",
    "dense_accuracy": "retrained_val_accuracy",
    **{f"{control}_accuracy": "val_accuracy" for control in CONTROLS},
    **{f"{control}_retrained_accuracy": "retrained_val_accuracy" for control in CONTROLS},
}
_FULLY_CONNECTED = re.compile(r"fc(-[1-9][0-9]{0,5})+")
_FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")  # package.module:factory
FOLDERS = ("parquet", "imagefolder")


def is_own(name: str) -> bool:
    """Whether the name of a model, or of a data set, is that of a user's own factory."""
    return _FACTORY.fullmatch(name) is not None and name.partition(":")[0] not in FOLDERS


def known_model(name: str) -> str:
    """The name of a model. Raises ValueError with rule and hint if there is none of that name."""
    is_known = name in MODELS and "…" not in name and name != FACTORY
    if not is_known and not _FULLY_CONNECTED.fullmatch(name) and not _FACTORY.fullmatch(name):
        raise ValueError(f"must be a model this version has ({did_you_mean(name, MODELS)})")
    return name


def known_dataset(name: str) -> str:
    """The name of a data set. Raises ValueError with rule and hint if there is none so named."""
    scheme, colon, folder = name.partition(":")
    if colon and scheme in FOLDERS and folder:
        return name
    is_known = name in DATASETS and not colon
    if not is_known and not is_own(name):
        raise ValueError(f"must be a data set this version has ({did_you_mean(name, DATASETS)})")
    return name


def known_controls(names: list[str]) -> list[str]:
    """The names in one order, since equal configurations must have equal fingerprints."""
    if len(set(names)) < len(names):
        raise ValueError("must name a control once")
    return [name for name in CONTROLS if name in names]
