"""Documents out of files of every kind, and one clear line for a file that is not right."""

import bz2
import errno
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmlm.data import Data, layouts, sources
from jaxmlm.data.files import files
from jaxmlm.errors import InputError
from jaxmlm.os_errors import explain


def documents(paths, *options):
    """The texts alone."""
    return [document.text for document in sources.documents(paths, *options)]


def zipped(*texts, name="{}.txt", **options):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED, **options) as archive:
        for number, text in enumerate(texts):
            archive.writestr(name.format(number), text)
    return out.getvalue()


TEXT = "one\ntwo\n\n \t\nthree ä\n\n"
PACK = {
    "txt": bytes,
    "gz": gzip.compress,
    "bz2": bz2.compress,
    "xz": lzma.compress,
    "zst": zstandard.ZstdCompressor(write_checksum=True).compress,
    "zip": zipped,
}


def write(directory, name, raw):
    (directory / name).write_bytes(raw)
    return directory / name


@pytest.mark.parametrize("kind", PACK)
@pytest.mark.parametrize(
    "change",
    [
        str,
        lambda t: "\ufeff" + t,
        *(lambda t, end=end: t.replace("\n", end) for end in ("\r\n", "\r", "\r\r\n")),
        lambda t: "\ufeff" + t.replace("two\n\n", "two\r\r").replace("\t\n", "\t\r\n"),
    ],
)
def test_layouts(tmp_path, kind, change):
    path = write(tmp_path, f"a.{kind}", PACK[kind](change(TEXT).encode()))
    assert (documents([path])) == ["one\ntwo", "three ä"]
    assert (documents([path, path], "line")) == ["one", "two", "three ä"] * 2
    (whole,) = documents([path], "file")
    assert whole.split() == ["one", "two", "three", "ä"]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.lists(st.text("aé\U0001f600 .", min_size=1).map(str.strip).filter(bool), min_size=1), max_size=5))
def test_what_was_written_is_read(tmp_path_factory, wanted):
    texts = ["\n".join(lines) for lines in wanted]
    path = write(tmp_path_factory.mktemp("text"), "a.txt", "\n\n".join(texts).encode())
    assert (documents([path])) == texts
    assert (documents([path], "line")) == [line for lines in wanted for line in lines]


def test_patterns(tmp_path):
    for name in ("b.txt", "a.txt", "c.md", "d[1].txt", "e, f.text"):
        write(tmp_path, name, name.encode())
    assert [path.name for path in files(f"{tmp_path}/*.md, {tmp_path}/?.txt")] == ["c.md", "a.txt", "b.txt"]
    assert [path.name for path in files(f"{tmp_path}/d[1].txt")] == ["d[1].txt"]
    assert [path.name for path in files(f"{tmp_path}/e, f.text")] == ["e, f.text"]
    one, other = sources.open_files(f"{tmp_path}/?.txt").about
    assert one["bytes"] == other["bytes"] == 5
    assert one["sha256"] != other["sha256"]


def test_a_path_with_commas_is_one_text_of_a_configuration_too(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a, b.txt", "a", "b.txt"):
        write(tmp_path, name, b"a")
    assert Data("a, b.txt").texts == ["a, b.txt"] and Data("a,b.txt").texts == ["a", "b.txt"]
    assert Data("a, sample:20", weights=(0.5, 0.5)).texts == ["a", "sample:20"]


def test_a_list_of_files_may_be_longer_than_a_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = [f"wikipedia-{i:03d}.txt" for i in range(40)]
    for name in names:
        write(tmp_path, name, b"a")
    assert [path.name for path in files(",".join(names))] == Data(",".join(names)).texts == names


@pytest.mark.parametrize("pattern", ["none.txt", "*.none", "", "empty", "a.txt,none.txt"])
def test_a_missing_file(tmp_path, monkeypatch, pattern):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "a.txt", b"a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no text file at"):
        files(pattern)


def test_links_to_directories_are_followed_and_circles_end(tmp_path):
    for name in ("texts/a", "texts/.hidden", "elsewhere/b"):
        (tmp_path / name).mkdir(parents=True)
        write(tmp_path, f"{name}/1.txt", b"a")
    (tmp_path / "texts" / "link").symlink_to("../elsewhere")
    (tmp_path / "elsewhere" / "b" / "back").symlink_to("../../texts")
    (tmp_path / "texts" / "self").symlink_to(".")
    (tmp_path / "texts" / "gone").symlink_to("nowhere")
    found = [str(path.relative_to(tmp_path)) for path in files(f"{tmp_path}/texts")]
    assert found == ["texts/a/1.txt", "texts/link/b/1.txt"]


def test_a_directory_that_cannot_be_read_is_not_passed_over(tmp_path, monkeypatch):
    """Its files would be missing from the text, and nobody would know."""
    (tmp_path / "locked").mkdir()
    (tmp_path / ".trash").mkdir()
    write(tmp_path, "a.txt", b"a")
    for name in ("listdir", "scandir"):
        read = getattr(os, name)

        def refused(path, read=read):
            if Path(path).name in ("locked", ".trash"):
                raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))
            return read(path)

        monkeypatch.setattr(os, name, refused)
    with pytest.raises(PermissionError) as caught:
        files(str(tmp_path))
    assert explain(caught.value) == f"{tmp_path}/locked: permission denied: get access, or name another path"


def test_an_empty_file(tmp_path):
    write(tmp_path, "a.txt", b"")
    with pytest.raises(InputError, match="a.txt is empty"):
        files(f"{tmp_path}/a.txt")


@pytest.mark.parametrize("kind", PACK)
def test_bytes_that_are_not_utf8_name_their_place(tmp_path, kind):
    path = write(tmp_path, f"a.{kind}", PACK[kind](b"one\n\nthr\xe9e\n"))
    with pytest.raises(InputError, match=rf"a\.{kind}, line 3: not UTF-8 text .*byte 8 of the file"):
        (documents([path]))


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_a_packed_file_that_is_not_whole(tmp_path, kind):
    raw = b"\n\n".join(str(i * 7919 % 10007).encode() for i in range(60_000))
    packed = PACK[kind](raw)
    broken = bytearray(packed)
    broken[200:300] = b"\xff" * 100
    for name, data in {"half": packed[: len(packed) // 2], "end": packed[:-3], "broken": bytes(broken)}.items():
        with pytest.raises(InputError, match=rf"{name}\.{kind}, after line \d+: cannot be read"):
            (documents([write(tmp_path, f"{name}.{kind}", data)]))
    with pytest.raises(InputError, match="cannot be read"):
        (documents([write(tmp_path, f"text.{kind}", b"no packed file at all")]))
    assert len(documents([write(tmp_path, f"whole.{kind}", packed)])) == 60_000


@pytest.mark.parametrize("kind", ["gz", "bz2", "xz", "zst"])
def test_packed_files_joined_end_to_end(tmp_path, kind):
    path = write(tmp_path, f"a.{kind}", PACK[kind](b"one\n\n") + PACK[kind](b"two\n"))
    assert (documents([path])) == ["one", "two"]


def test_json_lines(tmp_path):
    path = write(tmp_path, "a.jsonl", b'{"text": "one\\ntwo", "body": "b", "n": 1}\n\n{"text": "three", "body": "c"}\n')
    assert (documents([path], "jsonl")) == ["one\ntwo", "three"]
    assert (documents([path], "jsonl", "body")) == ["b", "c"]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a"', "line 2: not JSON"),
        ("[1]", "line 2: a JSON list, not an object"),
        ('{"title": "a", "n": 1, "body": "b"}', "line 2: no text field 'text'; there are title, body: name one as"),
        ('{"text": 3}', "the field 'text' holds a JSON number, not text: leave .* .there are none. as"),
        (
            '{"text": null, "title": "y"}',
            "line 2: the field 'text' holds a JSON null, not text: .* .there are title. as",
        ),
        ('{"text": ["a", "b"]}', "line 2: the field 'text' holds a JSON list, not text"),
        ('{"text": {"body": "a"}}', "line 2: the field 'text' holds a JSON object, not text: .*there are text.body"),
        ('{"text": true}', "line 2: the field 'text' holds a JSON boolean, not text"),
        ('{"title": {"a": {"b": "c"}}}', "line 2: no text field 'text'; there are title.a.b: name one as"),
        ("null", "line 2: a JSON null, not an object"),
        ("[" * 100_000, "line 2: not JSON"),
    ],
)
def test_json_lines_that_are_none(tmp_path, line, message):
    path = write(tmp_path, "a.jsonl", f'{{"text": "fine"}}\n{line}\n'.encode())
    with pytest.raises(InputError, match=message):
        (documents([path], "jsonl"))


def test_json_lines_with_objects_within(tmp_path):
    path = write(tmp_path, "a.jsonl", b'{"meta": {"text": "one"}, "meta.text": "two"}\r{"meta": {"text": "three"}}\r')
    assert documents([path], "jsonl", "meta.text") == ["two", "three"]
    with pytest.raises(InputError, match="line 1: no text field 'meta.body'; there are meta.text, meta.text: name one"):
        documents([path], "jsonl", "meta.body")


def test_a_zip_of_several_files(tmp_path):
    path = write(tmp_path, "a.ZIP", zipped("one\n\ntwo", "\ufeffthree\rfour", name="directory/{}.txt"))
    with zipfile.ZipFile(path, "a") as archive:
        for name in ("__MACOSX/directory/._0.txt", "directory/.DS_Store", "empty/"):
            archive.writestr(name, b"\0\1")
    assert files(str(path)) == [path]
    found = list(sources.documents([path]))
    assert [(d.text, d.number, d.file) for d in found] == [("one", 0, 0), ("two", 1, 0), ("three\nfour", 2, 0)]
    assert documents([path], "file") == ["one\n\ntwo", "three\nfour"]
    path = write(tmp_path, "b.zip", zipped("one", "caf\u00e9".encode("latin-1")))
    with pytest.raises(InputError, match=r"b\.zip \(1\.txt\), line 1: not UTF-8 text"):
        documents([path])


def locked():
    raw = bytearray(zipped("one\n" * 100))
    raw[6] |= 1  # the flag of a password, in the head of the file and in the list of all
    raw[raw.index(b"PK\1\2") + 8] |= 1
    return bytes(raw)


ZIPS = {
    "half": (zipped("one\n" * 1000)[:-30], "half.zip: cannot be read"),
    "none": (b"no zip", "none.zip: cannot be read"),
    "empty": (zipped(), "empty.zip holds no file"),
    "within": (zipped(b"", name="{}.txt.gz"), "within.zip holds 0.txt.gz, which is packed itself: unpack within.zip"),
    "locked": (locked(), r"locked\.zip, 0\.txt: cannot be read .*password"),
}


@pytest.mark.parametrize("name", ZIPS)
def test_zips_that_are_not_read_are_refused_before_the_work(tmp_path, name):
    raw, message = ZIPS[name]
    with pytest.raises(InputError, match=message):
        files(str(write(tmp_path, f"{name}.zip", raw)))


def test_a_zip_whose_text_is_broken(tmp_path):
    raw = bytearray(zipped("one two three\n" * 1000))
    raw[50] ^= 0xFF
    with pytest.raises(InputError, match=r"a\.zip, after line \d+: cannot be read"):
        documents([write(tmp_path, "a.zip", bytes(raw))])


UNREAD = "7z rar lz4 lz br Z tar tgz tar.gz TAR.BZ2 tar.zst txz pdf".split()


@pytest.mark.parametrize("kind", UNREAD)
def test_packings_that_are_not_read_are_refused_by_name(tmp_path, kind):
    write(tmp_path, f"wiki.{kind}", b"\x04\x22M\x18 anything")
    write(tmp_path, "wiki.a.txt", b"one")
    with pytest.raises(InputError, match=rf"wiki\.{kind}: \.{kind} files are not read: unpack or convert it to plain"):
        files(f"{tmp_path}/wiki.*")


UNNAMED = {
    **{kind: pack(b"one\n" * 99) for kind, pack in PACK.items() if kind != "txt"},
    **{"7z": b"7z\xbc\xaf'\x1c\0\4", "rar": b"Rar!\x1a\7\0", "lz4": b"\x04\x22M\x18", "Z": b"\x1f\x9d\x90"},
}


@pytest.mark.parametrize("kind", UNNAMED)
def test_a_packed_file_whose_name_does_not_say_so(tmp_path, kind):
    path = write(tmp_path, "wiki.txt", UNNAMED[kind])
    cure = rf"name it wiki\.txt\.{kind}" if kind in PACK else "convert it to plain text"
    with pytest.raises(InputError, match=rf"wiki\.txt is a \.{kind} file that is not named so: {cure}"):
        files(str(path))
    assert files(str(write(tmp_path, "hello.txt", b"BZh, PK, LZIP and 7z are words"))) == [tmp_path / "hello.txt"]


def test_a_line_that_is_too_long_for_text(tmp_path, monkeypatch):
    monkeypatch.setattr(layouts, "LINE", 1 << 20)
    path = write(tmp_path, "a.txt", b"one\n\n" + b"x" * ((1 << 20) - 1) + b"\n\n" + b"y" * (1 << 21))
    with pytest.raises(
        InputError, match=r"a\.txt, line 5: a line of more than 1 MiB, from byte 1048582 on: is it text"
    ):
        list(documents([path]))


@pytest.mark.parametrize("layout", ["blank-line", "file"])
def test_a_document_that_no_blank_line_ends_is_refused_before_it_fills_the_memory(tmp_path, monkeypatch, layout):
    monkeypatch.setattr(layouts, "LONGEST", 1 << 20)
    path = write(tmp_path, "a.txt", b"a line of text\n" * 100_000)
    with pytest.raises(InputError, match=r"a\.txt, line 69906: a document of more than 1 Mi .* --data.layout line"):
        list(documents([path], layout))
    assert len(documents([path], "line")) == 100_000
    path.write_bytes((b"a line of text\n" * 50_000 + b"\n") * 3)
    assert len(documents([path])) == 3


@pytest.mark.parametrize("codec", ["utf-16-le", "utf-16-be"])
def test_what_is_no_utf8_though_its_bytes_are(tmp_path, codec):
    with pytest.raises(InputError, match=r"a\.txt, line \d: a NUL byte, so this is not UTF-8 text"):
        documents([write(tmp_path, "a.txt", "\none\n\ntwo".encode(codec))])
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.add(write(tmp_path, "b.txt", b"one\n\ntwo"), "b.txt")
    packed = write(tmp_path, "a.tar.gz", gzip.compress((tmp_path / "a.tar").read_bytes()))
    with pytest.raises(InputError, match=r"a\.tar\.gz, line 1: a NUL byte.*: unpack an archive"):
        documents([packed])
    late = write(tmp_path, "c.txt", b"one\n\n" * 1000 + b"a\0b")  # a bad character is no reason to stop
    assert documents([late])[-1] == "a\0b"


def test_a_zst_file_of_a_long_window(tmp_path):
    settings = zstandard.ZstdCompressionParameters.from_level(1, window_log=28)
    packed = zstandard.ZstdCompressor(compression_params=settings).compressobj()
    path = write(tmp_path, "a.zst", packed.compress(b"one\n\ntwo") + packed.flush())
    assert documents([path]) == ["one", "two"]


@pytest.mark.parametrize("kind", [kind for kind in PACK if kind != "zip"])
def test_documents_know_where_they_stand(tmp_path, kind):
    raw = "\n\n".join(f"text {i} {hash(str(i))}" for i in range(5000)).encode()
    paths = [write(tmp_path, f"{name}.{kind}", PACK[kind](raw)) for name in "ab"]
    found = list(sources.documents(paths))
    assert [(d.file, d.number) for d in found] == [(file, i) for file in (0, 1) for i in range(5000)]
    read = [d.read for d in found]
    size = sum(path.stat().st_size for path in paths)
    assert read == sorted(read) and read[-1] == size and paths[0].stat().st_size in read[:5000]
    assert len(set(read)) >= 2


def test_many_files_are_not_asked_for_their_size_again_and_again(tmp_path, monkeypatch):
    paths = [write(tmp_path, f"{i}.txt", b"x") for i in range(50)]
    asked, real = [], Path.stat
    monkeypatch.setattr(Path, "stat", lambda path, **more: asked.append(path) or real(path, **more))
    sources.text_source(paths)
    assert len(asked) <= 2 * len(paths)


def test_groups_of_files_are_the_files_in_order(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "GROUP", 25)
    paths = [write(tmp_path, f"{i}.txt", b"x" * 10 + b"\n\n" + str(i).encode()) for i in range(8)]
    source = sources.text_source(paths)
    assert len(source.groups) == 4 and sum(g.size for g in source.groups) == 8 * 13
    assert [d for g in source.groups for d in g.documents()] == list(source.documents())
    assert [(d.file, d.text) for d in source.documents()] == [(f, t) for f in range(8) for t in ("x" * 10, str(f))]
