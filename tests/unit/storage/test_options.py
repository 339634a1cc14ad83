"""Words of a mount."""

import pytest

from agent.errors import Refused
from agent.linux import mount
from agent.storage import options
from agent.storage.overlayfs import layers, split_layers


def test_attributes_and_data_are_told_apart() -> None:
    parsed = options.parse(["ro", "nosuid,nodev", "trans=virtio,version=9p2000.L", "dax", "size=64k", "defaults"])
    assert parsed.attributes == mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV
    assert parsed.data == (("trans", "virtio"), ("version", "9p2000.L"), ("dax", None), ("size", "64k"))
    assert parsed.value("size") == "64k"
    assert parsed.read_only


def test_the_last_word_counts() -> None:
    parsed = options.parse(["ro", "rw", "nosuid", "suid", "exec", "noexec"])
    assert parsed.attributes == mount.MOUNT_ATTR_NOEXEC
    assert parsed.cleared == mount.MOUNT_ATTR_RDONLY | mount.MOUNT_ATTR_NOSUID


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["noatime", "strictatime"], mount.MOUNT_ATTR_STRICTATIME),
        (["strictatime", "noatime"], mount.MOUNT_ATTR_NOATIME),
        (["noatime", "relatime"], 0),
    ],
)
def test_access_times_are_one_field(words: list[str], field: int) -> None:
    parsed = options.parse(words)
    assert parsed.attributes == field
    assert parsed.cleared & mount.MOUNT_ATTR__ATIME == mount.MOUNT_ATTR__ATIME


def test_binds_and_propagation() -> None:
    parsed = options.parse(["rbind", "rslave"])
    assert (parsed.bind, parsed.recursive, parsed.propagation, parsed.propagate_below) == (True, True, mount.MS_SLAVE, True)
    assert options.parse(["bind", "private"])[2:6] == (mount.MS_PRIVATE, False, True, False)


@pytest.mark.parametrize("words", [["loop"], ["loop=/dev/loop0"], ["ro,loop"]])
def test_loop_is_refused(words: list[str]) -> None:
    with pytest.raises(Refused, match="loop devices"):
        options.parse(words)


def test_words_that_do_not_fit_are_refused() -> None:
    with pytest.raises(Refused, match="more than 4096"):
        options.parse(["x" * 5000])
    with pytest.raises(Refused, match="NUL"):
        options.parse(["size=1\0k"])


def test_an_escaped_comma_belongs_to_its_word() -> None:
    assert options.words([r"upperdir=/a\,b,index=off", r"c\\,d", "", ","]) == [r"upperdir=/a\,b", "index=off", r"c\\", "d"]


@pytest.mark.parametrize(
    ("text", "parts"),
    [("/a", ["/a"]), ("/a:/b", ["/a", "/b"]), (r"/a\:b:/c\\", ["/a:b", "/c\\"]), ("/a::/d", ["/a", "", "/d"])],
)
def test_layers_are_split_at_plain_colons(text: str, parts: list[str]) -> None:
    assert split_layers(text) == parts


def test_layers_become_single_options() -> None:
    given = (("lowerdir", "/a:/b::/data"), ("upperdir", "/u:p"), ("index", "off"), ("volatile", None))
    wanted = [("lowerdir+", "/a"), ("lowerdir+", "/b"), ("datadir+", "/data"), *given[1:]]
    assert layers(given, "6.12.118-innkeeper") == layers(given, "7.0.1") == wanted


def test_a_kernel_before_6_8_gets_the_layers_as_one_list() -> None:
    given = (("lowerdir", "/a:/b"), ("upperdir", "/u"), ("volatile", None))
    assert layers(given, "6.1.192-innkeeper") == list(given)
    assert layers((("lowerdir", "x" * 255),), "5.15.0-1-amd64") == [("lowerdir", "x" * 255)]
    with pytest.raises(Refused, match=r"lowerdir has more than 255 bytes, which needs Linux 6\.8"):
        layers((("lowerdir", "x" * 256),), "6.7.12")


@pytest.mark.parametrize("given", [['context="u:r:t:s0:c1,c2",size=1m'], ["size=1m", 'context="u:r:t:s0:c1,c2"']])
def test_a_quoted_context_keeps_its_commas(given: list[str]) -> None:
    assert dict(options.parse(given).data) == {"context": "u:r:t:s0:c1,c2", "size": "1m"}


def test_quotes_of_other_words_are_theirs() -> None:
    assert options.parse(['name="a,b"']).data == (("name", '"a'), ('b"', None))
