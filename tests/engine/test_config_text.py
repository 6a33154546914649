import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from densebnn.engine import config_text
from densebnn.registry import UserError


def write(tmp_path, text):
    path = tmp_path / "c.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def test_values_come_under_dotted_keys_with_their_types(tmp_path):
    text = "# a comment\ntrain:\n  lr: 1e-3\n  steps: 5\ndata.path: x\nname: 'no'\nempty: {}\nsize: [1, 2]\nout: null\n"
    assert config_text.read(write(tmp_path, text)) == {
        "train.lr": 1e-3,
        "train.steps": 5,
        "data.path": "x",
        "name": "no",
        "size": [1, 2],
        "out": None,
    }


def test_an_empty_file_is_an_empty_diff(tmp_path):
    assert config_text.read(write(tmp_path, "# Run: python tools/x.py\n")) == {}


BOMB = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{b}: &{b} [{', '.join(['*' + a] * 9)}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system ['touch pwned']", "line 1: tags"),
        ("a: !!python/name:os.system", "line 1: tags"),
        ("a: 1\nb: !unknown x", "line 2: tags"),
        (BOMB, "line 2: aliases are not allowed"),
        ("a: &a {x: 1}\nb:\n  <<: *a", "not allowed"),
        ("a: 1\nb: 2\na: 3", "line 3: key 'a' stands twice"),
        ("a.b: 1\na:\n  b: 2", "'a.b' stands twice"),
        ("1: 2", "line 1: the key 1 is not a name"),
        ("? [a]\n: 2", "is not a name"),
        ("- a\n- b", "expected a mapping"),
        ("hello", "expected a mapping"),
        ("a: [1", "line"),
        ("a:\n\t- b", "line 2"),
        ("--- {a: 1}\n--- {b: 1}", "line 2"),
        ("a: 2020-99-99", "not valid YAML"),
        ("{a: " * 5000, "nested too deeply"),
        (b"a: \xff\xfe", "not UTF-8"),
        (b"a: \x00", "not valid YAML"),
        ("a: " + "x" * 1_000_001, "too large"),
    ],
)
def test_what_is_not_plain_data_is_refused_with_its_place(tmp_path, monkeypatch, text, message):
    monkeypatch.chdir(tmp_path)
    path = write(tmp_path, text)
    with pytest.raises(UserError, match=message) as caught:
        config_text.read(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert [entry.name for entry in tmp_path.iterdir()] == ["c.yaml"]


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    with pytest.raises(UserError, match="no such configuration file"):
        config_text.read(tmp_path / "none.yaml")
    with pytest.raises(UserError, match="cannot be read"):
        config_text.read(tmp_path)


plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
text = st.text(st.characters(codec="utf-8", exclude_categories=["C"]), max_size=12)


@settings(max_examples=200, deadline=None)
@given(
    st.dictionaries(st.from_regex(r"k[a-z_]{0,5}", fullmatch=True), plain | text | st.lists(plain | text, max_size=3))
)
def test_text_that_was_written_reads_back_equal(tree):
    assert config_text.from_text(config_text.to_text(tree), "x") == tree


@pytest.mark.parametrize(
    "value", ["1e-3", "1e3", "1.5", "yes", "null", "~", "2020-01-01", "0x10", "- a", "a: b", "", "1_0"]
)
def test_strings_that_look_like_something_else_stay_strings(value):
    assert config_text.from_text(config_text.to_text({"a": value}), "x") == {"a": value}


@settings(max_examples=300, deadline=None)
@given(st.text(st.sampled_from("a:b &*!{}[]-?'\"#|>%@`,.\n\t 10eé"), max_size=60))
def test_any_text_is_read_or_refused_as_the_users_mistake(text):
    try:
        outcome = config_text.from_text(text, "x")
    except UserError as error:
        outcome = error
    assert isinstance(outcome, dict) or "\n" not in str(outcome)


def test_first_difference_follows_the_old_order_and_ignores_what_may_differ():
    old = {"b": 1, "a": 2, "run.out": "x", "run.workers": 0}
    assert config_text.first_difference(old, {**old, "a": 3, "b": 4}) == ("b", 1, 4)
    assert config_text.first_difference(old, {**old, "run.out": "y", "run.workers": 2}, ignore=["run"]) is None
    assert config_text.first_difference(old, {**old, "run.out": "y"}, ignore=["ru"]) == ("run.out", "x", "y")
    assert config_text.first_difference(old, {**old, "new": 1}) == ("new", "(not set)", 1)
    assert config_text.first_difference(old, {"b": 1}) == ("a", 2, "(not set)")
    assert config_text.first_difference({"a": None}, {}) == ("a", None, "(not set)")


def test_lists_of_sections_have_numbered_keys():
    text = "a:\n- b: 1\n  c: {d: 2}\n- b: 3\n"
    flat = {"a.0.b": 1, "a.0.c.d": 2, "a.1.b": 3}
    assert config_text.from_text(text, "x") == flat
    assert config_text.from_text("a: [{b: 1, c: {d: 2}}, {b: 3}]", "x") == flat
    assert config_text.to_text({"a": [{"b": 1, "c": {"d": 2}}, {"b": 3}]}) == "a:\n- b: 1\n  c:\n    d: 2\n- b: 3\n"
    for mixed in ([], [1], [{}], [{"b": 1}, {}], [{"b": 1}, 2]):
        assert config_text.flatten({"a": mixed}, "x") == {"a": mixed}
    assert config_text.first_difference(flat, {**flat, "a.1.b": 4}) == ("a.1.b", 3, 4)
    assert config_text.first_difference(flat, flat, ignore=["a"]) is None


def test_a_device_without_end_is_read_no_further_than_allowed():
    with pytest.raises(UserError, match="/dev/zero: more than 1000000 bytes"):
        config_text.read("/dev/zero")
