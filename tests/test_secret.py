from __future__ import annotations

import json

import pytest

from deepacc_d2.secret import HIDDEN, is_secret_name, redacted


@pytest.mark.parametrize(
    "name",
    [
        *("WANDB_API_KEY", "HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "password", "DB_PASSWORD_2"),
        *("logger.wandb.api-key", "apiKey", "github_token", "Authorization", "credentials"),
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)
    assert redacted({name: "abc"}) == {name: HIDDEN}
    assert redacted(f"{name}=abc seed=3") == f"{name}={HIDDEN} seed=3"


@pytest.mark.parametrize("name", ["seed", "keyboard", "monkey", "tokenizer", "passes", "author"])
def test_other_names(name: str) -> None:
    assert redacted(f"{name}=abc") == f"{name}=abc"
    assert redacted({name: "abc"}) == {name: "abc"}


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("make train ARGS='a.api_key=abc seed=3'", "make train ARGS='a.api_key=*** seed=3'"),
        ("https://me:pw@host/x.pkl", "https://***@host/x.pkl"),
        ("https://ghp_123@github.com/x", "https://***@github.com/x"),
        ("https://host/a?token=xyz&b=1", "https://host/a?token=***&b=1"),
        ("Authorization: Bearer abc.def", "Authorization: ***"),
        ("x --password 'a b' y", "x --password *** y"),
        ("the token is wrong", "the token is wrong"),
        ("git@github.com:me/x", "git@github.com:me/x"),
        ("ckpt=runs/epoch=3.ckpt", "ckpt=runs/epoch=3.ckpt"),
    ],
)
def test_texts(given: str, wanted: str) -> None:
    assert redacted(given) == wanted
    assert redacted(wanted) == wanted


def test_what_the_environment_keeps_secret_is_hidden_wherever_it_stands(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOME_SERVICE_TOKEN", "hf_abcdefghijk")
    monkeypatch.setenv("SSH_TOKEN_FILE", "/home/me/x")
    given = {"command": ["train", "x=hf_abcdefghijk"], "deep": [{"a": ("hf_abcdefghijk", 3)}]}
    assert "hf_abc" not in json.dumps(redacted(given))
    assert redacted("/home/me/x") == "/home/me/x"


def test_types_and_what_is_nobodys_secret_stay() -> None:
    given = {"token": None, "password": "", "api_key": True, "n": 3, "t": (1, 2.5), "l": [None]}
    assert redacted(given) == given
    assert redacted(["--token", "abc", "--seed", "3"]) == ["--token", HIDDEN, "--seed", "3"]
