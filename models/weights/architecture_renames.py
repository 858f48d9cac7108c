"""How other projects name a network's parameters, in our names: for checkpoints trained elsewhere."""

import re
from collections.abc import Callable

Rename = Callable[[str], str]


def resnet_key(blocks_per_stage: int) -> Rename:
    """CIFAR ResNets: `conv1`, `bn1`, `layer1.0.conv1`, `layer2.0.downsample.0` or `shortcut.0`, `linear` or `fc`."""

    def rename(key: str) -> str:
        key = re.sub(r"^(conv|bn)1\.", r"body.0.\1.", key)
        key = re.sub(r"^(linear|fc|classifier)\.", "body.1.", key)
        key = _flat_blocks(r"^layer(\d)\.(\d+)\.", "body.0.blocks.", key, blocks_per_stage)
        return key.replace(".downsample.", ".shortcut.")

    return rename


def vgg_key(key: str) -> str:
    """`features.0`, `features.1`, …, `classifier`, layers numbered as convolution, BN, ReLU, pooling."""
    key = re.sub(r"^(linear|fc)\.", "classifier.", key)
    return f"body.{key}"


def wide_resnet_key(blocks_per_stage: int) -> Rename:
    """Wide ResNets: `conv1`, `block1.layer.0.convShortcut`, `bn1`, `fc`."""

    def rename(key: str) -> str:
        key = re.sub(r"^(conv|bn)1\.", r"body.0.\1.", key)
        key = re.sub(r"^(linear|fc|classifier)\.", "body.1.", key)
        key = _flat_blocks(r"^block(\d)\.layer\.(\d+)\.", "body.0.blocks.", key, blocks_per_stage)
        return key.replace(".convShortcut.", ".shortcut.")

    return rename


def _flat_blocks(pattern: str, prefix: str, key: str, per_stage: int) -> str:
    """Stage and block, counted from 1 and 0 there, as one index over all blocks."""

    def index(found: re.Match[str]) -> str:
        stage, block = int(found[1]), int(found[2])
        # A stage or block that we do not have must not land on another one's place.
        inside = 1 <= stage <= 3 and block < per_stage
        return f"{prefix}{(stage - 1) * per_stage + block}." if inside else found[0]

    return re.sub(pattern, index, key)
