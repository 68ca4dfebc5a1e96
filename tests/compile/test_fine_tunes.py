"""Files as people's fine-tunes are, from the file to an answer: greedy as llama.cpp's wherever that is no close
call."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from inpage import Router
from inpage.errors import SourceInvalid, Unsupported
from inpage_compile.artifact.licenses import check_license
from inpage_compile.pipeline import compile_model
from inpage_compile.sources import open_source
from support.fine_tunes import CHAT, FINE_TUNES, STEPS
from support.models import first_ways, open_engine, score

WITNESS = json.loads((Path(__file__).parents[1] / "reference" / "fine_tunes.json").read_text("utf-8"))["files"]
CLEAR = 0.5  # how far llama.cpp's second choice is behind
RUN = tuple(FINE_TUNES) if "INPAGE_SLOW" in os.environ else ("many-ends",)
MESSAGES = [{"role": "user", "content": "what can you do"}]


@pytest.mark.parametrize("name", FINE_TUNES)
def test_what_a_file_says(name: str, tmp_path: Path) -> None:
    source = open_source(str(FINE_TUNES[name].write(tmp_path / f"{name}.gguf")))
    assert WITNESS[name]["weights_sha256"] == FINE_TUNES[name].tiny.digest()
    # A file that names no end ends with llama.cpp at token 11, whatever that is: a sign, here, that text is made of.
    assert set(source.tokenizer.eos) == set(WITNESS[name]["ends"]) - ({11} if name == "declared-as-text" else set())
    assert (source.chat_template is None) == (name == "base")
    assert source.id == name
    others = "of the chat templates only the one without a name is taken, not 'rag', 'tool_use'"
    assert source.warnings == ((f"{name}.gguf: {others}",) if name == "named-templates" else ())
    if name == "no-licence":
        with pytest.raises(SourceInvalid, match=r"the source names no licence.*--accept-license"):
            check_license(source.license, accepted=False)
    assert check_license(source.license, accepted=True) in ("Apache-2.0", "LicenseRef-unknown")


@pytest.mark.parametrize("name", RUN)
async def test_it_answers_as_llama_cpp_does(name: str, tmp_path: Path) -> None:
    tune, witness = FINE_TUNES[name], WITNESS[name]
    with first_ways():
        folder = compile_model(
            str(tune.write(tmp_path / f"{name}.gguf")),
            tmp_path / "out",
            variants=("native-f32",),
            levels=("source",),
            accept_license=True,
        )
    async with await Router.load(folder, backend="native-f32") as router:
        if tune.text == CHAT:
            answer = await router.chat(MESSAGES, temperature=0, max_tokens=STEPS)
        else:
            with pytest.raises(Unsupported, match="base model"):
                await router.chat(MESSAGES)
            answer = await router.complete(tune.text, temperature=0, max_tokens=STEPS)
        prompt = list(answer.prompt_ids)
    assert prompt == witness["prompt"]
    sure = next((i for i, margin in enumerate(witness["margins"]) if margin < 0.05), len(witness["tokens"]))
    ended = witness["tokens"][-1] in witness["ends"]
    assert list(answer.token_ids)[:sure] == witness["tokens"][:sure]
    if sure == len(witness["tokens"]):
        assert answer.finish_reason == ("stop" if ended else "length")
    # Fed with llama.cpp's tokens, the same choice wherever it is clear.
    engine = await open_engine(folder, "native-f32")
    ids = prompt + witness["tokens"]
    scores = await score(engine, ids, [5, 2, 9, 0, 7], len(prompt))
    await engine.unload()
    clear = [i for i, margin in enumerate(witness["margins"]) if margin >= CLEAR]
    assert len(clear) >= 6
    assert [scores[i][0] for i in clear] == [witness["tokens"][i] for i in clear]
