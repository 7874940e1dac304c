"""What batches in memory are made of."""

from livedex.catalogue import Generation, Target
from livedex.core.change import VersionMode
from livedex.core.chunking import ChunkingSpec
from livedex.encoders.hash import HashEncoder
from livedex.encoders.port import ModelSpec
from livedex.index.applying import Claim

ENCODER = HashEncoder(ModelSpec(model="hash-4"))
GENERATION = Generation(
    generation_id=1, collection_id=1, collection="c", version_mode=VersionMode.LOG, chunking_id=1, spec=ChunkingSpec(),
    text_config="simple", metric="cosine", storage="halfvec", identity=ENCODER.identity, probe=None,
)  # fmt: skip

TARGETS = (Target(generation=GENERATION, encoder=ENCODER),)


def claim_of(partition: int, owner_epoch: int = 0) -> Claim:
    """A claim on a partition of the topic `t`."""
    return Claim(topic="t", partition=partition, owner_epoch=owner_epoch, next_offset=0, epoch=0)
