"""No password survives, whatever is in it."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ddarts_core.ground.redact import hide_secrets, without_secrets

RESERVED = [
    "se/cret",
    "p#ssword",
    "what?ever",
    "p@ssword",
    "pass word",
    "12/34567",
    "p%40ssword",
    "p:ssword",
    "/",
    "'\"\\",
]

passwords = st.text(max_size=12)
places = st.sampled_from(["host", "host:5000", "[::1]:5000", "host/db", "host:5000/a b", ""])
schemes = st.sampled_from(["http", "https", "postgresql", "mysql+pymysql"])
users = st.text(alphabet=st.characters(exclude_characters=":/"), max_size=6)
TEXTS = ["no answer", "Max retries exceeded with url: /api (Caused by <HTTPConnection(host='h', port=1)>)"]


@pytest.mark.parametrize(
    ("uri", "safe"),
    [
        ("sqlite:////srv/mlflow.db", "sqlite:////srv/mlflow.db"),
        ("sqlite:////srv/a:b@c#1/mlflow.db", "sqlite:////srv/a:b@c#1/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("http://host/p@th:1", "http://host/p@th:1"),
        ("https://me:secret@host:5000/a?token=secret#x", "https://host:5000/a"),
        ("https://token@host", "https://host"),
        ("postgresql://me:secret@host/db", "postgresql://host/db"),
        ("postgresql:///db?user=me&password=secret", "postgresql:///db"),
        ("s3://bucket/studies", "s3://bucket/studies"),
        ("abfs://container@account/studies", "abfs://container@account/studies"),
        ("mlruns", "mlruns"),
        ("", ""),
    ],
)
def test_what_is_left_of_a_uri(uri: str, safe: str) -> None:
    assert without_secrets(uri) == safe
    assert hide_secrets(uri) == safe


def test_a_uri_whose_scheme_was_forgotten() -> None:
    assert without_secrets("//me:secret@host") == "//host"
    assert hide_secrets("no file //me:secret@host", "tracking.uri=//me:secret@host") == "no file //me:***@host"


@given(schemes, users, passwords, places)
def test_a_uri_loses_user_and_password(scheme: str, user: str, password: str, place: str) -> None:
    assert without_secrets(f"{scheme}://{user}:{password}@{place}") == f"{scheme}://{place}"


@pytest.mark.parametrize("password", RESERVED)
@pytest.mark.parametrize("text", TEXTS)
def test_a_text_loses_the_password_of_a_uri_in_it(password: str, text: str) -> None:
    uri = f"postgresql://me:{password}@host:5432/db"
    for shown in (f"{text}: {uri}", f"tracking.uri {uri!r}: {text}", f"{text} ({uri}) {uri} and {uri}"):
        hidden = hide_secrets(shown)
        assert f"{password}@" not in hidden and repr(password)[1:-1] + "@" not in hidden and "me:" not in hidden
        assert "host:5432/db" in hidden


@given(users, st.text(max_size=6), st.text(max_size=6), places, st.sampled_from(TEXTS))
@example("me", "12 34@", "", "host", "")
@example("me", " 5@ ", "@", "host", "")
def test_the_secret_of_a_known_uri_is_nowhere(user: str, before: str, after: str, place: str, text: str) -> None:
    password = f"{before}S3cR{after}"
    uri = f"postgresql://{user}:{password}@{place}"
    shown = f"{text}: {uri!r} {uri} with {password} ({password!r}) {' '.join(uri.split())}"
    assert "S3cR" not in hide_secrets(shown, f"tracking.uri={uri}")


def test_the_decoded_form_of_a_known_secret_is_cut_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:p%40ss-word@host")
    assert hide_secrets("user me, password p@ss-word (p%40ss-word)") == "user me, password *** (***)"


@pytest.mark.parametrize(
    "text",
    [
        "http://host:5000 does not answer: mail to me@host",
        "http://host: mail to me@host",
        "RAY_AUTH_TOKEN_PATH=/srv/token and RAY_AUTH_MODE=token",
        "--set search.epochs=5",
        "open http://host:5000/#/experiments/7/runs?workflowType=machine_learning instead",
    ],
)
def test_a_text_without_secrets_stays_as_it_is(text: str) -> None:
    assert hide_secrets(text) == text


def test_a_link_keeps_its_page_and_nothing_else() -> None:
    assert hide_secrets("open http://me:secret@host/a#/runs/1?x=1 now") == "open http://host/a#/runs/1?x=1 now"
    assert hide_secrets("http://host/a?x=1#/runs http://host#access") == "http://host/a http://host"
    assert hide_secrets("sqlite:////srv/a#/m.db") == "sqlite:////srv/a#/m.db"


def test_settings_of_a_connection_are_cut() -> None:
    text = "host=h user=me password='a b' sslpassword=xyz ok; access_token=abc&x=1"
    assert hide_secrets(text) == "host=h user=me password=*** sslpassword=*** ok; access_token=***&x=1"
