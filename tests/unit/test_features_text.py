import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.feature_extraction.text import TfidfVectorizer

from mllib.features import text
from mllib.features.text import MAX_CHARACTERS, WIDTH, distinct_templates, fit_vectorizer, mask, matches, terms
from tests.factories import make_logs


def masked(message: str) -> str:
    return mask(pl.Series([message]))[0]


@pytest.mark.parametrize(
    ("message", "template"),
    [
        ("Request 17 took 3.5ms", "request <num> took <num>"),
        ("at 2026-11-21T07:33:38.123Z up", "at <time> up"),
        ("2005-06-03-15.42.50.675872 up", "<time> up"),
        ("backup at 12:33:44 done", "backup at <time> done"),
        ("from 10.0.0.1:8080 to 192.168.1.20", "from <ip> to <ip>"),
        ("from fe80::1ff:fe23:4567:890a ok", "from <ip> ok"),
        ("id 550e8400-e29b-41d4-a716-446655440000.", "id <uuid>."),
        ("address 0xdeadbeef, mask deadbeefcafe", "address <hex>, mask <hex>"),
        ("open /var/log/x.txt failed", "open <path> failed"),
        ("read C:\\Users\\x failed", "read <path> failed"),
        ("GET http://host/a?b=c now", "get <url> now"),
        ('sent "anything at all" twice', "sent <str> twice"),
        ("don't touch user 'x y'", "don't touch user <str>"),
        ('{"event": "login", "n": 3}', "{event: <str>, n: <num>}"),
        ("blk_-1608999687919862906 on node12", "<num> on <num>"),
        ("I/O error in std::bad_alloc", "i/o error in std::bad_alloc"),
        ("zażółć gęślą 5", "zażółć gęślą <num>"),
        ("", ""),
    ],
)
def test_what_varies_becomes_a_placeholder(message, template):
    assert masked(message) == template


SECRETS = [
    ("password=hunter", "hunter"),
    ("db_password: swordfish ok", "swordfish"),
    ("the password is swordfish", "swordfish"),
    ('{"password": "sword fish"}', "fish"),
    ('{"Password":"sword fish', "fish"),
    ("passwd='sword fish'", "fish"),
    ("api_key=abcdef", "abcdef"),
    ("API key: abcdef", "abcdef"),
    ("aws_secret_access_key = wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY", "bpxr"),
    ("got wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY here", "bpxr"),
    ("got wJalrXUtnFEMI+K7MDENG+bPxRfiCYEXAMPLEKEY here", "bpxr"),
    ("Authorization: Bearer abcdefghij", "abcdefghij"),
    ("authorization=Basic dXNlcjpwYXNz", "dxnl"),
    ("sent bearer abcdefghij upstream", "abcdefghij"),
    ("run --password swordfish --verbose", "swordfish"),
    ("connect postgres://user:swordfish@db/main", "swordfish"),
    ("eyJhbGciOiJub25l.eyJzdWIiOiJhbGljZSJ9.abcdef used", "abcdef"),
    ("key AKIAIOSFODNN7EXAMPLE used", "akia"),
    ("ghp_abcdefghijklmnopqrst used", "abcdefgh"),
    ("sk_live_abcdefghijkl used", "abcdefgh"),
    ("-----BEGIN RSA PRIVATE KEY----- abcdef ghijkl -----END RSA PRIVATE KEY-----", "ghijkl"),
    ("mail to alice.smith@example.org now", "alice"),
    ("token abcdefghijklmnopqrstuvwxyzab seen", "abcdefgh"),
    ("cookie: session=abcdef", "abcdef"),
]


@pytest.mark.parametrize(("message", "secret"), SECRETS)
def test_secrets_never_reach_a_vocabulary(message, secret):
    templates = mask(pl.Series([message, "an ordinary line"]))
    vocabulary = fit_vectorizer(templates, np.array([5, 5])).vocabulary
    assert vocabulary  # all terms of these few lines would be kept
    assert secret not in templates[0]
    assert not [term for term in vocabulary if secret in term]


def test_a_secret_cut_in_two_does_not_leave_its_first_half():
    message = "x" * 10 + " " + "a b " * ((MAX_CHARACTERS - 20) // 4) + "mail wonderful.person@example.org"
    assert len(message) > MAX_CHARACTERS
    assert "wonder" not in masked(message)


def test_a_line_of_a_million_characters_is_cut():
    assert len(masked("word " * 200_000)) <= MAX_CHARACTERS
    assert masked("a" * 1_000_000) == ""


def test_hostile_text_survives():
    messages = pl.Series(["nul \x00 byte", "\ud7ff\uffff", "(" * 400, "[$1] ${1} \\1", "=" * 499, '"' * 333, "é" * 600])
    assert len(mask(messages)) == 7


def test_null_stays_null_and_is_no_template():
    messages = pl.Series(["a 1", None, "a 2"])
    assert mask(messages).to_list() == ["a <num>", None, "a <num>"]
    codes, templates = distinct_templates(messages)
    assert templates.to_list() == ["a <num>", ""]
    assert codes.tolist() == [0, 1, 0]
    assert mask(pl.Series([None, None])).to_list() == [None, None]


def test_distinct_templates_are_those_of_mask():
    messages = make_logs(2_000)["message"]
    codes, templates = distinct_templates(messages)
    assert templates.n_unique() == len(templates) < 20
    assert templates.gather(codes).to_list() == mask(messages).to_list()


def reference() -> TfidfVectorizer:
    return TfidfVectorizer(max_features=WIDTH, min_df=2, max_df=0.8, ngram_range=(1, 2))


def test_vectors_are_those_of_scikit_learn_on_the_expanded_rows():
    templates = mask(make_logs(300)["message"]).unique(maintain_order=True)
    counts = np.arange(3, 3 + len(templates))
    ours = fit_vectorizer(templates, counts)
    theirs = reference().fit(np.repeat(templates.to_numpy(), counts))
    assert list(ours.vocabulary) == theirs.get_feature_names_out().tolist()
    np.testing.assert_allclose(ours.idf, theirs.idf_, rtol=1e-12)
    fresh = pl.concat(
        [templates, pl.Series(["nothing known", "", "request request num <num> completed in", "REQUEST"])]
    )
    expected = theirs.transform(fresh.to_list()).toarray()
    found = ours.transform(fresh)
    assert found.shape == (len(fresh), WIDTH)
    np.testing.assert_allclose(found[:, : expected.shape[1]], expected, atol=1e-7)
    assert not found[:, expected.shape[1] :].any()


def test_the_most_frequent_terms_of_many_are_kept():
    rng = np.random.default_rng(1)
    words = np.array([f"{a}{b}" for a in "abcdefghij" for b in "klmnopqrst"])
    weights = 1 / np.arange(1, 101)
    templates = pl.Series([" ".join(rng.choice(words, 12, p=weights / weights.sum())) for _ in range(400)])
    templates = templates.unique(maintain_order=True)
    counts = rng.integers(1, 9, len(templates))
    ours = fit_vectorizer(templates, counts)
    theirs = reference().fit(np.repeat(templates.to_numpy(), counts))
    assert len(ours.vocabulary) == WIDTH
    # Between equally frequent terms at the border the two may choose differently.
    assert len(set(ours.vocabulary) & set(theirs.vocabulary_)) >= WIDTH - 2
    same = TfidfVectorizer(vocabulary=list(ours.vocabulary), ngram_range=(1, 2))
    expected = same.fit_transform(np.repeat(templates.to_numpy(), counts)).toarray()
    np.testing.assert_allclose(
        ours.transform(templates)[np.repeat(np.arange(len(counts)), counts)], expected, atol=1e-7
    )


def test_terms_of_one_row_and_of_nearly_all_rows_are_left_out():
    templates = pl.Series(["common word", "common thing", "common rare"])
    vocabulary = fit_vectorizer(templates, np.array([5, 4, 1])).vocabulary
    assert vocabulary == ("common thing", "common word", "thing", "word")


@pytest.mark.parametrize("templates", [pl.Series(["same line"]), pl.Series([""]), pl.Series([], dtype=pl.String)])
def test_an_empty_vocabulary_gives_zeros(templates):
    vectorizer = fit_vectorizer(templates, np.full(len(templates), 10))
    assert vectorizer.vocabulary == ()
    assert vectorizer.transform(pl.Series(["same line", ""])).tolist() == [[0.0] * WIDTH] * 2
    assert vectorizer.transform(pl.Series([], dtype=pl.String)).shape == (0, WIDTH)


def test_a_vector_does_not_depend_on_the_templates_around_it():
    templates = mask(make_logs(300)["message"]).unique(maintain_order=True)
    vectorizer = fit_vectorizer(templates, np.full(len(templates), 10))
    whole = vectorizer.transform(templates)
    assert (
        b"".join(vectorizer.transform(templates[i : i + 1]).tobytes() for i in range(len(templates))) == whole.tobytes()
    )


NASTY = st.text(
    st.sampled_from("abfgzAFZ019 -_=:./'\"<>@[]\\\t\n\r\x0b\x1c\x85\xa0éİıſKßΣς\u0301\u200d漢Ⅷ٣"), max_size=40
)


SECRETIVE = st.lists(
    st.sampled_from(
        [secret for message, _ in SECRETS for secret in message.split()]
        + [
            "-",
            "--",
            "=",
            ": ",
            " ",
            "is ",
            "'",
            '"',
            "/",
            "\\",
            "@",
            "a.b",
            "0",
            "-0-0-0-0",
            "abcdef",
            "\n",
            "<",
            ">",
            "{",
            "İ",
        ]
    ),
    max_size=12,
).map("".join)


@settings(deadline=None, max_examples=300)
@given(SECRETIVE)
def test_a_secret_is_masked_in_one_line_as_in_many(message):
    # Eleven shapes go through one query, and one alone through Python.
    many = [
        f"{message} {word}"
        for word in ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "more")
    ]
    with_query = text._masked(many)
    assert [text._masked([shape])[0] for shape in many] == with_query


@settings(deadline=None, max_examples=100)
@given(st.lists(NASTY, min_size=1, max_size=20))
def test_few_messages_are_read_as_many_are(messages):
    # A few go through Python's patterns, many through those of polars.
    few, many = mask(pl.Series(messages)), mask(pl.Series(messages * 300))
    assert many[: len(messages)].to_list() == few.to_list()
    assert [mask(pl.Series([message]))[0] for message in messages] == few.to_list()
    for pattern in (r"\b\w\w+\b", r"[a-z_]{2,}|<\w+>"):
        assert matches(messages * 300, pattern)[: len(messages)] == matches(messages, pattern)
        assert [matches([message], pattern)[0] for message in messages] == matches(messages, pattern)


def test_a_long_message_among_few_is_cut_as_among_many():
    messages = ["word " * 200, "b" * 600, "a 1", None]
    assert mask(pl.Series(messages)).to_list() == mask(pl.Series(messages * 100))[:4].to_list()


def test_terms_are_words_and_then_pairs_of_neighbours():
    rows, found = terms(pl.Series(["one TWO b three", None, "four"]))
    assert rows.tolist() == [0, 0, 0, 2, 0, 0]
    assert found.to_list() == ["one", "two", "three", "four", "one two", "two three"]
