"""What users of OpenAI's own Python client do, against a tenk gateway with keys.

Each function is one check; a failed one raises. Prints how many there were.
"""

import json
import math
import os

import openai

BASE_URL = os.environ["TEST_BASE_URL"]
KEY = os.environ["TEST_API_KEY"]
MODEL = os.environ["TEST_MODEL"]
FRANCE = [{"role": "user", "content": "What is the capital of France?"}]

client = openai.OpenAI(base_url=BASE_URL, api_key=KEY, max_retries=0, timeout=60)
CHECKS = []


def check(function):
    CHECKS.append(function)
    return function


def chat(**options):
    return client.chat.completions.create(
        **{"model": MODEL, "messages": FRANCE, "temperature": 0, "max_tokens": 12, **options}
    )


@check
def a_chat_is_answered():
    answer = chat()
    assert answer.object == "chat.completion", answer
    assert "Paris" in answer.choices[0].message.content, answer
    assert answer.choices[0].message.role == "assistant", answer
    assert answer.choices[0].finish_reason in ("stop", "length"), answer
    usage = answer.usage
    assert usage.prompt_tokens > 5 and usage.completion_tokens > 0, usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens, usage


@check
def a_stream_brings_the_same_text_in_pieces():
    # Not from the cache, which keeps no pieces: `seed` makes it another request with the same answer.
    chunks = list(chat(stream=True, seed=77))
    pieces = [chunk.choices[0].delta.content for chunk in chunks if chunk.choices[0].delta.content]
    assert len(pieces) > 3, chunks
    assert "".join(pieces) == chat().choices[0].message.content, pieces
    assert chunks[0].choices[0].delta.role == "assistant", chunks[0]
    assert chunks[-1].choices[0].finish_reason in ("stop", "length"), chunks[-1]
    assert len({chunk.id for chunk in chunks}) == 1, chunks
    assert all(chunk.usage is None for chunk in chunks), "nobody asked for usage"


@check
def the_last_chunk_has_usage_when_asked_for():
    chunks = list(chat(stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == [], chunks[-1]
    assert chunks[-1].usage == chat().usage, (chunks[-1], chat().usage)
    assert all(chunk.usage is None for chunk in chunks[:-1]), chunks


@check
def logprobs_are_those_of_the_text():
    answer = chat(logprobs=True, top_logprobs=3, max_tokens=6)
    tokens = answer.choices[0].logprobs.content
    assert len(tokens) == answer.usage.completion_tokens, tokens
    assert "".join(token.token for token in tokens) == answer.choices[0].message.content, tokens
    for token in tokens:
        assert len(token.top_logprobs) == 3, token
        assert token.logprob <= 0, token
        # Greedy, so that the chosen one is the likeliest.
        assert token.top_logprobs[0].token == token.token, token
        assert math.isclose(token.top_logprobs[0].logprob, token.logprob, abs_tol=1e-5), token
        ranked = [top.logprob for top in token.top_logprobs]
        assert ranked == sorted(ranked, reverse=True), token
        assert bytes(token.bytes).decode() == token.token, token
    plain = chat(max_tokens=6)
    assert plain.choices[0].logprobs is None, plain


@check
def a_stream_carries_logprobs_too():
    chunks = chat(stream=True, logprobs=True, top_logprobs=2, max_tokens=6)
    tokens = [
        token
        for chunk in chunks
        if chunk.choices[0].logprobs
        for token in chunk.choices[0].logprobs.content
    ]
    whole = chat(logprobs=True, top_logprobs=2, max_tokens=6).choices[0].logprobs.content
    assert [token.token for token in tokens] == [token.token for token in whole], (tokens, whole)


@check
def a_stop_string_ends_the_answer_and_is_not_in_it():
    answer = chat(stop=["Paris"])
    assert "Paris" not in answer.choices[0].message.content, answer
    assert answer.choices[0].finish_reason == "stop", answer
    assert chat().choices[0].message.content.startswith(answer.choices[0].message.content), answer


@check
def the_cap_on_tokens_is_kept_and_told():
    answer = chat(max_completion_tokens=3, max_tokens=openai.omit)
    assert answer.usage.completion_tokens == 3, answer
    assert answer.choices[0].finish_reason == "length", answer


@check
def two_answers_come_when_asked_for():
    answer = chat(n=2, temperature=1.5, seed=1, max_tokens=8)
    assert [choice.index for choice in answer.choices] == [0, 1], answer
    texts = [choice.message.content for choice in answer.choices]
    assert texts[0] != texts[1], texts
    chunks = list(chat(n=2, temperature=1.5, seed=1, max_tokens=8, stream=True))
    for index in (0, 1):
        pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices[0].index == index]
        assert "".join(pieces) == texts[index], (pieces, texts)


@check
def a_seed_repeats_what_was_sampled_and_another_does_not():
    def sample(seed):
        # Computed anew each time: what is to be shown is not the cache.
        return chat(
            temperature=1.2, seed=seed, max_tokens=10, extra_headers={"cache-control": "no-store"}
        ).choices[0].message.content

    first = sample(5)
    assert sample(5) == first
    assert sample(6) != first


@check
def text_completions_work():
    answer = client.completions.create(
        model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=4, logprobs=2
    )
    assert answer.object == "text_completion", answer
    assert "Paris" in answer.choices[0].text, answer
    logprobs = answer.choices[0].logprobs
    assert "".join(logprobs.tokens) == answer.choices[0].text, answer
    assert len(logprobs.token_logprobs) == len(logprobs.top_logprobs) == 4, logprobs
    stream = client.completions.create(
        model=MODEL, prompt="The capital of France is", temperature=0, max_tokens=4, stream=True
    )
    assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text
    echoed = client.completions.create(
        model=MODEL, prompt=["One,", "Alpha,"], temperature=0, max_tokens=2
    )
    assert [choice.index for choice in echoed.choices] == [0, 1], echoed


@check
def models_are_listed_and_found():
    listed = client.models.list().data
    assert [model.id for model in listed] == [MODEL], listed
    found = client.models.retrieve(MODEL)
    assert found.id == MODEL and found.object == "model", found


def refused(kind, **options):
    try:
        answer = chat(**options)
    except kind as error:
        return error
    raise AssertionError(f"{options} was answered: {answer}")


@check
def wrong_values_are_bad_requests_that_name_the_field():
    cases = {
        "temperature": {"temperature": 3},
        "n": {"n": 0},
        "messages": {"messages": []},
        "messages[0].role": {"messages": [{"role": "nobody", "content": "x"}]},
        "stop": {"stop": [""]},
        "top_logprobs": {"top_logprobs": 3},
        "tools": {"tools": [{"type": "function", "function": {"name": "f"}}]},
    }
    for param, options in cases.items():
        error = refused(openai.BadRequestError, **options)
        assert error.param == param, (param, error.param, error.message)
        assert error.type == "invalid_request_error", error.type
        assert error.status_code == 400, error.status_code
    error = refused(openai.BadRequestError, max_tokens=10_000_000)
    assert (error.param, error.code) == ("max_tokens", "context_length_exceeded"), error.message


@check
def an_absent_model_is_not_found():
    error = refused(openai.NotFoundError, model="gpt-nothing")
    assert (error.code, error.param) == ("model_not_found", "model"), error.message
    try:
        client.models.retrieve("gpt-nothing")
    except openai.NotFoundError:
        return
    raise AssertionError("an absent model was found")


@check
def a_wrong_key_is_an_authentication_error():
    for key in ("wrong", KEY + "x", KEY[:-1]):
        stranger = openai.OpenAI(base_url=BASE_URL, api_key=key, max_retries=0)
        for call in (
            lambda: stranger.models.list(),
            lambda: stranger.chat.completions.create(model=MODEL, messages=FRANCE),
        ):
            try:
                call()
            except openai.AuthenticationError as error:
                assert error.status_code == 401 and error.type == "authentication_error", error
                assert key not in error.message, "the key is repeated"
            else:
                raise AssertionError("a stranger was served")


for function in CHECKS:
    try:
        function()
    except BaseException as error:
        error.add_note(f"in the check {function.__name__}")
        raise
print(json.dumps({"checks": len(CHECKS)}))
