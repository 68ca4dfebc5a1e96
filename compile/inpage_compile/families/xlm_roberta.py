"""XLM-RoBERTa, as bge-m3, multilingual E5 and their rerankers are: BERT whose positions begin behind those for padding,
with one segment and two separators between a pair's texts. GGUF files call it BERT."""

from .encoder import CONFIG, GGUF, EncoderFamily

FAMILY = EncoderFamily(
    "xlm-roberta",
    gguf=GGUF,
    position_offset=2,
    separators=2,
    types=("xlm-roberta",),
    prefix="roberta.",
    config=CONFIG,
    off={
        "position_embedding_type": ("absolute",),
        "is_decoder": (False,),
        "add_cross_attention": (False,),
        "pad_token_id": (1,),
    },
)
