"""BERT, as MiniLM, BGE, GTE and E5 are: learned positions, two segments, layer norms behind what is added."""

from .encoder import GGUF, EncoderFamily

FAMILY = EncoderFamily("bert", activation="gelu_erf", gguf=GGUF, types=("bert",), prefix="bert.")
