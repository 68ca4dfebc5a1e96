"""Every malformed request is refused with the field's name and with what mends it."""

from typing import Any

import pytest

from inpage.errors import InvalidRequest
from inpage.requests.messages import checked_messages
from inpage.requests.params import SEEDS, answer_room, checked_ids, checked_text, options


def refused(field: str, match: str) -> Any:
    class Check:
        def __enter__(self) -> None:
            self.context = pytest.raises(InvalidRequest, match=match)
            self.info = self.context.__enter__()

        def __exit__(self, *error: Any) -> bool:
            caught = self.context.__exit__(*error)
            assert self.info.value.field == field
            return bool(caught)

    return Check()


@pytest.mark.parametrize(
    ("params", "field", "match"),
    [
        ({"max_tokens": -1}, "max_tokens", "at least 0"),
        ({"max_tokens": 1.5}, "max_tokens", "whole number"),
        ({"max_tokens": True}, "max_tokens", "whole number"),
        ({"temperature": -0.1}, "temperature", "at least 0 and at most 2"),
        ({"temperature": 2.1}, "temperature", "at most 2"),
        ({"temperature": float("nan")}, "temperature", "at least 0"),
        ({"temperature": "hot"}, "temperature", "must be a number"),
        ({"top_p": -0.1}, "top_p", "at least 0"),
        ({"top_p": 1.1}, "top_p", "at most 1"),
        ({"top_k": -1}, "top_k", "at least 0"),
        ({"min_p": 1.5}, "min_p", "at most 1"),
        ({"repetition_penalty": 0}, "repetition_penalty", "above 0"),
        ({"presence_penalty": 3}, "presence_penalty", "at most 2"),
        ({"frequency_penalty": -3}, "frequency_penalty", "at least -2"),
        ({"seed": 2**63}, "seed", "at most"),
        ({"logit_bias": [1]}, "logit_bias", "must map"),
        ({"logit_bias": {"x": 1}}, "logit_bias[x]", "whole numbers of 0..99"),
        ({"logit_bias": {100: 1}}, "logit_bias[100]", "whole numbers of 0..99"),
        ({"logit_bias": {1: 200}}, "logit_bias[1]", "at most 100"),
        ({"max_token": 5}, "max_token", r"unknown parameter 'max_token'; did you mean max_tokens\? known"),
        ({"cheese": 5}, "cheese", "unknown parameter 'cheese'; known are"),
    ],
)
def test_parameters(params: dict[str, Any], field: str, match: str) -> None:
    with refused(field, match):
        options(params, vocab=100)


def test_good_parameters() -> None:
    got = options({"temperature": 0, "max_tokens": 5, "logit_bias": {"7": -1, 3: 2.5}, "top_p": None}, vocab=100)
    assert got.max_tokens == 5
    assert got.sampling.seed == 0
    assert got.sampling.logit_bias == ((3, 2.5), (7, -1.0))
    assert options({"seed": 9}, vocab=100).sampling.seed == 9
    assert options({"seed": -1}, vocab=100).sampling.seed == SEEDS - 1  # OpenAI's seeds have a sign
    assert options({"top_p": 0, "max_tokens": 0}, vocab=100).sampling.top_p == 0


def test_a_missing_seed_is_drawn() -> None:
    seeds = {options({"temperature": 1}, vocab=100).sampling.seed for _ in range(8)}
    assert len(seeds) == 8


@pytest.mark.parametrize(
    ("messages", "field", "match"),
    [
        ([], "messages", "empty"),
        (5, "messages", "must be a list"),
        (["hi"], "messages[0]", "must be an object"),
        ([{"role": "wizard", "content": "hi"}], "messages[0].role", "must be one of system, user, assistant"),
        ([{"content": "hi"}], "messages[0].role", "None"),
        ([{"role": "user"}], "messages[0].content", "must be a string, not NoneType"),
        ([{"role": "user", "content": "a"}, {"role": "user", "content": 1}], "messages[1].content", "not int"),
        ([{"role": "user", "content": "a", "nmae": "b"}], "messages[0].nmae", "unknown key"),
        ([{"role": "user", "content": "a\ud800"}], "messages[0].content", "half a character"),
        ([{"role": "user", "content": [{"type": "image_url"}]}], "messages[0].content[0].type", "reads text only"),
        ([{"role": "user", "content": [{"type": "text"}]}], "messages[0].content[0].text", "must be a string"),
        ([{"role": "user", "content": "a", "refusal": "no"}], "messages[0].refusal", "not supported"),
        ([{"role": "user", "content": "a", "name": 5}], "messages[0].name", "must be a string"),
    ],
)
def test_messages(messages: Any, field: str, match: str) -> None:
    with refused(field.replace("\\", ""), match):
        checked_messages(messages)


def test_openais_names_are_understood() -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer"}}}
    form = {"type": "json_schema", "json_schema": {"name": "a", "schema": schema, "strict": True}}
    asked = {
        "max_completion_tokens": 5, "response_format": form, "logprobs": True, "top_logprobs": 3, "user": "ada",
        "stream": True, "stream_options": {"include_usage": True}, "n": 1, "metadata": {"a": "b"}, "store": False,
        "temperature": 0,
    }  # fmt: skip
    got = options(asked, vocab=100)
    ours = {"max_tokens": 5, "schema": schema, "logprobs": 3, "client": "ada", "temperature": 0}
    assert got == options(ours, vocab=100)
    assert options({"response_format": {"type": "text"}, "logprobs": False}, vocab=100).grammar is None


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"schema": {}, "response_format": {"type": "json_object"}}, "response_format"),
        ({"response_format": {"type": "xml"}}, "response_format.type"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage"),
        ({"stream_options": 1}, "stream_options"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"logprobs": True, "top_logprobs": 21}, "logprobs"),
        ({"n": 2}, "n"),
        ({"store": True}, "store"),
        ({"user": 5}, "client"),
    ],
)
def test_a_bad_value_of_openais_names_its_field(params: dict[str, Any], field: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        options(params, vocab=100)
    assert caught.value.field == field


def test_openais_messages_become_plain() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    given = [
        {"role": "developer", "content": parts, "name": "boss"},
        {"role": "user", "content": "hi", "name": "ada", "tool_calls": None},
        {"role": "assistant", "content": parts, "refusal": "", "audio": None},
        {"role": "tool", "content": parts, "tool_call_id": "1", "name": "look"},
    ]
    assert checked_messages(given) == [
        {"role": "system", "content": "ab"},
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "ab"},
        {"role": "tool", "content": "ab", "tool_call_id": "1", "name": "look"},
    ]


def test_a_string_is_one_user_message() -> None:
    assert checked_messages("hi") == [{"role": "user", "content": "hi"}]
    assert checked_messages("") == [{"role": "user", "content": ""}]


def test_texts_and_ids() -> None:
    with refused("prompt", "empty"):
        checked_text("", "prompt")
    with refused("prompt", "empty"):
        checked_ids([], 10, "prompt")
    with refused("prompt[1]", "0..9"):
        checked_ids([1, 10], 10, "prompt")
    with refused("prompt[0]", "0..9"):
        checked_ids([True], 10, "prompt")
    assert checked_ids(range(3), 10, "prompt") == [0, 1, 2]


def test_room() -> None:
    assert answer_room(10, None, 16, "prompt") == 6
    assert answer_room(10, 3, 16, "prompt") == 3
    with refused("messages", "at most 15 fit"):
        answer_room(16, None, 16, "messages")
    with refused("max_tokens", "at most 6"):
        answer_room(10, 7, 16, "prompt")
