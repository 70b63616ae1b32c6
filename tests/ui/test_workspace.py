import json
import os
import time

import pytest

from stepwise_dpo.errors import DataError
from stepwise_dpo.preferences.pairs import PreferencePair, Step
from stepwise_dpo.ui.library import MAX_SETS, ExampleSet, Library, new_pair
from stepwise_dpo.ui.workspace import Workspace

VISITOR, OTHER = "a-secret-of-one-browser", "a-secret-of-another-one"
PAIRS = tuple(
    PreferencePair(f"problem {i} é\u2028", [Step("right", True)], [Step("wrong\n2", False)], f"p{i}", {"n": i})
    for i in range(3)
)
BUNDLED = Library((ExampleSet("one.json", PAIRS), ExampleSet("two.json", PAIRS[:1])), "one.json")


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "workspaces"


def restarted(folder, visitor=VISITOR, **options):
    """What a server that has just started finds."""
    return Workspace(folder, BUNDLED, **options).load(visitor)


def edited(library):
    return library.updated(library.current.deleted(0))


def files(folder):
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def test_changed_and_added_sets_come_back_and_nothing_else_is_written(folder):
    workspace = Workspace(folder, BUNDLED)
    library = edited(BUNDLED).added("mine.json", PAIRS)
    workspace.save(VISITOR, library, BUNDLED)
    found, messages = restarted(folder)
    assert messages == []
    assert {known.name: known.pairs for known in found.sets} == {known.name: known.pairs for known in library.sets}
    assert found.open_name == "mine.json"
    assert len(files(folder)) == 3  # the index, the changed set, the added one
    assert VISITOR not in str(list(folder.rglob("*"))) + "".join(p.read_text() for p in folder.rglob("*.json*"))


def test_visitors_have_their_own(folder):
    workspace = Workspace(folder, BUNDLED)
    workspace.save(VISITOR, edited(BUNDLED), BUNDLED)
    assert workspace.load(OTHER).library is BUNDLED
    assert workspace.load(VISITOR).library.current.pairs == PAIRS[1:]


@pytest.mark.parametrize("visitor", ["", None, "short", "x" * 201, 7, ["a" * 20]])
def test_without_a_token_nothing_is_kept(folder, visitor):
    workspace = Workspace(folder, BUNDLED)
    assert workspace.save(visitor, edited(BUNDLED), BUNDLED) == []
    assert not folder.exists()
    assert workspace.load(visitor) == (BUNDLED, [])


def test_a_token_is_no_path(folder):
    Workspace(folder, BUNDLED).save("../../../../../tmp/x/y", edited(BUNDLED), BUNDLED)
    assert [path.parent.parent for path in folder.rglob("index.json")] == [folder]


def test_a_refresh_keeps_what_undo_needs(folder):
    workspace = Workspace(folder, BUNDLED)
    workspace.save(VISITOR, edited(BUNDLED), BUNDLED)
    assert workspace.load(VISITOR).library.current.undone().pairs == PAIRS


def test_going_back_to_the_bundled_examples_removes_the_file(folder):
    workspace = Workspace(folder, BUNDLED)
    changed = edited(BUNDLED)
    workspace.save(VISITOR, changed, BUNDLED)
    back = changed.updated(changed.current.undone())
    workspace.save(VISITOR, back, changed)
    assert files(folder) == ["index.json"]
    assert restarted(folder).library.current.pairs == PAIRS


def test_a_removed_set_is_gone_and_an_empty_one_stays(folder):
    workspace = Workspace(folder, BUNDLED)
    library = BUNDLED.added("mine.json", PAIRS[:1])
    workspace.save(VISITOR, library, BUNDLED)
    empty = edited(library)
    workspace.save(VISITOR, empty, library)
    assert restarted(folder).library.current.pairs == ()
    workspace.save(VISITOR, empty.without("mine.json"), empty)
    assert restarted(folder).library.names == BUNDLED.names


def test_two_tabs_of_a_browser_lose_nothing(folder):
    workspace = Workspace(folder, BUNDLED)
    one = two = workspace.load(VISITOR).library
    # Different sets: both changes are kept.
    workspace.save(VISITOR, changed := edited(one), one)
    one = changed
    workspace.save(VISITOR, changed := edited(two.opened("two.json")), two)
    two = changed
    found = restarted(folder).library
    assert [len(known.pairs) for known in found.sets] == [2, 0]
    # The same set: the other tab's version gets a name of its own.
    two = two.opened("one.json")
    messages = workspace.save(VISITOR, two.updated(two.current.deleted(2)), two)
    assert messages == ["Another tab has changed one.json too; its version is kept as one.json (2)."]
    found = restarted(folder).library
    assert found.get("one.json").pairs == PAIRS[:2]
    assert found.get("one.json (2)").pairs == PAIRS[1:]


@pytest.mark.parametrize("damage", [b"", b"{}\n", None])
def test_a_damaged_file_is_named_and_left(folder, damage):
    Workspace(folder, BUNDLED).save(VISITOR, edited(BUNDLED).added("mine.json", PAIRS), BUNDLED)
    path = next(folder.rglob("mine-*.jsonl"))
    content = path.read_bytes()[:-20] if damage is None else damage  # cut off, or something else
    path.write_bytes(content)
    workspace = Workspace(folder, BUNDLED)
    library, messages = workspace.load(VISITOR)
    assert len(messages) == 1
    assert "mine.json" in messages[0]
    assert path.name in messages[0]
    assert library.get("one.json").pairs == PAIRS[1:]
    # Nor does the next change, of a set of this very name, touch it.
    workspace.save(VISITOR, library.added("mine.json", PAIRS[:2]), library)
    assert path.read_bytes() == content
    assert restarted(folder).library.get("mine.json").pairs == PAIRS[:2]


@pytest.mark.parametrize(
    "damage",
    [
        *("{", "[]", '{"version": 2}', "[" * 100_000, " " * 2_000_000),
        *('{"version": 1, "open": "x", "sets": [{"name": "x"}]}', '{"version": 1, "open": 1, "sets": []}'),
        '{"version": 1, "open": "x", "sets": [{"name": "\\ud800", "file": "", "sha256": ""}]}',
        '{"version": 1, "open": "x", "sets": [{"name": "x", "file": "x.jsonl", "sha256": "0"}]}',
    ],
    ids=lambda damage: damage[:80],
)
def test_a_damaged_index_is_named_and_kept(folder, damage):
    workspace = Workspace(folder, BUNDLED)
    workspace.save(VISITOR, edited(BUNDLED), BUNDLED)
    path = next(folder.rglob("index.json"))
    path.write_text(damage)
    workspace = Workspace(folder, BUNDLED)
    library, messages = workspace.load(VISITOR)
    assert library is BUNDLED
    assert "index.json is damaged" in messages[0]
    workspace.save(VISITOR, edited(library), library)
    assert [p.read_text() for p in folder.rglob("damaged-*")] == [damage]
    assert restarted(folder).messages == []


@pytest.mark.parametrize("file", ["../../secret.jsonl", "/etc/passwd", "..", "index.json", "a\0.jsonl", "a.jsonl\n"])
def test_an_index_names_no_file_elsewhere(folder, tmp_path, file):
    Workspace(folder, BUNDLED).save(VISITOR, edited(BUNDLED), BUNDLED)
    path = next(folder.rglob("index.json"))
    index = json.loads(path.read_text())
    index["sets"][0]["file"] = file
    path.write_text(json.dumps(index))
    assert "damaged" in restarted(folder).messages[0]


def test_too_much_is_refused_and_what_was_kept_stays(folder):
    workspace = Workspace(folder, BUNDLED, max_bytes=2_000)
    workspace.save(VISITOR, edited(BUNDLED), BUNDLED)
    large = PreferencePair("p" * 3_000, [Step("a")], [Step("b")], "x")
    library = edited(BUNDLED)
    too_much = library.updated(library.current.inserted(0, large))
    with pytest.raises(DataError, match="download it"):
        workspace.save(VISITOR, too_much, library)
    assert restarted(folder).library.current.pairs == PAIRS[1:]
    # The session still has it; once it fits again, that is no other tab's change.
    smaller = too_much.updated(too_much.current.replaced(0, new_pair("x")))
    assert workspace.save(VISITOR, smaller, too_much) == []
    assert restarted(folder).library.current.pairs == smaller.current.pairs


def test_two_tabs_that_take_turns_leave_one_copy_each(folder):
    workspace = Workspace(folder, BUNDLED)
    tabs = [BUNDLED, BUNDLED]
    for turn in range(6):
        before = tabs[turn % 2]
        after = before.updated(before.current.inserted(0, new_pair(f"{turn}")))
        workspace.save(VISITOR, after, before)
        tabs[turn % 2] = after
    found = restarted(folder).library
    assert len(found.sets) <= len(BUNDLED.sets) + 2
    versions = [known.pairs for known in found.sets]
    assert all(tab.current.pairs in versions for tab in tabs)  # the latest of both


def test_a_set_of_somebodys_own_is_never_taken_for_such_a_copy(folder):
    workspace = Workspace(folder, BUNDLED)
    own = BUNDLED.added("one.json (backup)", PAIRS).opened("one.json")  # what one.json was, kept by hand
    workspace.save(VISITOR, own, BUNDLED)
    one = own.updated(own.current.deleted(0))
    workspace.save(VISITOR, one, own)
    workspace.save(VISITOR, own.updated(own.current.deleted(2)), own)
    found = restarted(folder).library
    assert found.get("one.json (backup)").pairs == PAIRS
    assert found.get("one.json (2)").pairs == PAIRS[1:]


def test_a_change_needs_no_room_beside_what_it_replaces(folder):
    large = [PreferencePair("p" * 500, [Step("a")], [Step(f"b{number}")], str(number)) for number in range(3)]
    before = BUNDLED.updated(ExampleSet(BUNDLED.open_name, tuple(large)))
    workspace = Workspace(folder, BUNDLED, max_bytes=2_500)
    workspace.save(VISITOR, before, BUNDLED)
    after = before.updated(before.current.replaced(0, new_pair("x")))
    assert workspace.save(VISITOR, after, before) == []
    assert restarted(folder).library.current.pairs == after.current.pairs


def test_what_a_refused_save_has_written_goes_with_the_next(folder, monkeypatch):
    workspace = Workspace(folder, BUNDLED)
    two = edited(BUNDLED).updated(ExampleSet("two.json", PAIRS[1:]))
    monkeypatch.setattr("stepwise_dpo.ui.workspace._write_index", broken)
    with pytest.raises(DataError):
        workspace.save(VISITOR, two, BUNDLED)
    monkeypatch.undo()
    assert len(list(folder.rglob("*.jsonl"))) == 2
    workspace.save(VISITOR, edited(BUNDLED), BUNDLED)
    assert len(list(folder.rglob("*.jsonl"))) == 1


def broken(*_):
    raise OSError(28, "No space left on device")


def test_too_many_sets_are_refused_before_anything_is_written(folder):
    library = BUNDLED
    for number in range(MAX_SETS + 1):
        library = Library((*library.sets, ExampleSet(f"{number}.json", tuple(PAIRS))), library.open_name)
    with pytest.raises(DataError, match="example sets are kept"):
        Workspace(folder, BUNDLED).save(VISITOR, library, BUNDLED)
    assert not list(folder.rglob("*.jsonl"))


@pytest.mark.parametrize("name", ["x" * 301, "\ud800", "a\0"])
def test_a_name_that_could_not_be_read_back_is_refused(folder, name):
    library = Library((*BUNDLED.sets, ExampleSet(name, PAIRS)), BUNDLED.open_name)
    with pytest.raises(DataError, match=r"could not be kept on disk: name: (String|Input) should"):
        Workspace(folder, BUNDLED).save(VISITOR, library, BUNDLED)
    assert restarted(folder) == (BUNDLED, [])


def test_a_folder_that_can_not_be_written_is_explained(folder):
    folder.parent.mkdir(exist_ok=True)
    folder.write_text("a file")
    with pytest.raises(DataError, match="could not be kept on disk"):
        Workspace(folder, BUNDLED).save(VISITOR, edited(BUNDLED), BUNDLED)


def test_old_visitors_are_purged_and_recent_ones_are_not(folder):
    workspace = Workspace(folder, BUNDLED)
    for visitor in (VISITOR, OTHER):
        workspace.save(visitor, edited(BUNDLED), BUNDLED)
    (folder / "not-a-visitor").mkdir()
    yesterday = time.time() - 90_000
    for path in folder.rglob("index.json"):
        os.utime(path, (yesterday, yesterday))
    workspace.load(OTHER)  # a visit counts
    assert workspace.purge(86_400) == 1
    assert workspace.load(VISITOR).library is BUNDLED
    assert restarted(folder, OTHER).library.current.pairs == PAIRS[1:]
    assert (folder / "not-a-visitor").exists()


def test_a_public_page_purges_by_itself(folder):
    Workspace(folder, BUNDLED).save(VISITOR, edited(BUNDLED), BUNDLED)
    index = next(folder.rglob("index.json"))
    os.utime(index, (1, 1))
    assert restarted(folder, OTHER, keep_seconds=86_400).library is BUNDLED
    assert not index.exists()


def test_the_things_of_visitors_go_also_where_nobody_comes(folder):
    workspace = Workspace(folder, BUNDLED, keep_seconds=3600.0)
    workspace.save(VISITOR, edited(BUNDLED))
    (kept,) = folder.iterdir()
    os.utime(kept / "index.json", (1, 1))
    workspace.purge_hourly()
    deadline = time.monotonic() + 20
    while kept.exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert list(folder.iterdir()) == []


def test_a_page_that_is_loaded_anew_shares_what_has_not_changed(folder):
    library = edited(BUNDLED).added("mine.json", PAIRS)
    Workspace(folder, BUNDLED).save(VISITOR, library)
    workspace = Workspace(folder, BUNDLED)
    found = workspace.load(VISITOR).library
    assert [pair is own for pair, own in zip(found.get("one.json").pairs, PAIRS[1:], strict=True)] == [True, True]
    assert not found.get("one.json").edited
    changed = found.get("mine.json").replaced(0, new_pair("p0"))
    workspace.save(VISITOR, found.updated(changed))
    workspace._recent.clear()  # as many other visitors do
    again = workspace.load(VISITOR).library.get("mine.json")
    assert again.pairs == changed.pairs
    assert all(pair is own for pair, own in zip(again.pairs, changed.pairs, strict=True))
    assert again.facts[0].searchable.startswith("p0")
