"""guest.toml: what is read, how files are layered, and what is refused by name."""

import json
from dataclasses import fields
from pathlib import Path

import pytest

from agent import config as agent_config
from innkeeper.errors import InnkeeperError
from innkeeper.guest import additions, config, config_checks, config_file
from innkeeper.guest.config import Guest
from innkeeper.guest.kernel import SOURCES
from innkeeper.guest.pipeline import of_words

ARM = "architecture = 'aarch64'\n"


def read(folder: Path, **texts: str) -> Guest:
    """Write the files and read them in this order."""
    for name, text in texts.items():
        (folder / f"{name}.toml").write_text(text)
    return config_file.read([folder / f"{name}.toml" for name in texts])


def test_nothing_said_is_the_default_image(tmp_path: Path) -> None:
    assert config_file.read([]) == read(tmp_path, empty="") == Guest() == of_words("release", "auto")
    assert not Guest().is_customised and Guest().parameters == ()


def test_later_files_win_tables_are_merged_and_lists_appended(tmp_path: Path) -> None:
    base = 'variant = "debug"\noutputs = ["root"]\n[kernel]\nuse = "debian"\nparameters = ["a=1"]\n[budgets]\nroot = 5'
    over = 'include = ["more.toml"]\noutputs = ["kernel"]\n[kernel]\nparameters = ["b"]\n[[files]]\npath = "/etc/b"\ntext = "b"'
    (tmp_path / "more.toml").write_text('[[files]]\npath = "/etc/a"\nfolder = true\n[budgets]\nroot = 6')
    guest = read(tmp_path, base=base, over=over)
    assert (guest.variant, guest.outputs, guest.kernel.use, guest.kernel.parameters) == ("debug", ("kernel",), "debian", ("a=1", "b"))
    assert [entry.path for entry in guest.files] == ["/etc/a", "/etc/b"]
    assert (guest.budgets.root, guest.budgets.kernel) == (6, config.BudgetsPart().kernel)


def test_what_is_printed_reads_as_the_same_guest(tmp_path: Path) -> None:
    text = '[root]\npackages = ["strace"]\n[agent]\nsettings = {log_level = "debug", dev_mode = true}\n'
    text += '[[files]]\npath="/a"\ntext="\\"é\\n"\nmode="0600"'
    guest = read(tmp_path, one=text)
    assert read(tmp_path, printed=config_file.as_toml(guest)) == guest
    assert read(tmp_path, printed=config_file.as_toml(Guest())) == Guest()


def test_paths_are_relative_to_the_file_that_names_them(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "policy.toml").write_text("")
    (tmp_path / "sub" / "inner.toml").write_text('[agent]\npolicy = "policy.toml"')
    assert read(tmp_path, outer='include = ["sub/inner.toml"]').agent.policy == str(tmp_path / "sub" / "policy.toml")


@pytest.mark.parametrize(
    ("text", "message", "hint"),
    [
        ("varint = 1", "unknown key varint", "did you mean variant?"),
        ("[kernl]", "unknown key kernl", "did you mean kernel?"),
        ("[kernel]\nfragmets = []", "unknown key kernel.fragmets", "did you mean kernel.fragments?"),
        ("gateway = false", "unknown key gateway", "did you mean root.gateway?"),
        ("[root]\nzzz = 1", "unknown key root.zzz", "known keys are gateway, packages"),
        ("[agent.settings]\nlog_levl = 'debug'", "unknown key agent.settings.log_levl", "did you mean agent.settings.log_level?"),
        ("[agent.settings]\nlog_level = []", "agent.settings.log_level = []: not a string", None),
        ("variant = 'debgu'", "variant = 'debgu': unknown", "did you mean debug?"),
        ("architecture = 'arm'", "architecture = 'arm': unknown", None),
        (f"{ARM}outputs = ['kernel', 'disk', 'uki']", "'aarch64' cannot be used with outputs = 'uki'", "take uki out"),
        (f"{ARM}[kernel]\nuse = 'debian'", "'aarch64' cannot be used with kernel.use", "leave them out"),
        (f"{ARM}[budgets]\nkernel = 9", "'aarch64' cannot be used with budgets.kernel", "leave it out"),
        ("outputs = ['root', 'oci']", "outputs = 'oci': an OCI artefact is made of the outputs by --push", "known: kernel, root"),
        ("outputs = ['root', 'uki']", "outputs = 'uki' needs the output disk", "add disk to outputs"),
        ("outputs = ['disk', 'uki']\n[kernel]\nuse = 'debian'", "outputs = 'uki' cannot be used with kernel.use = 'debian'", "leave one"),
        ("[root]\ngateway = 1", "root.gateway = 1: not true or false", None),
        ("[budgets]\nroot = true", "budgets.root = True: not a whole number", None),
        ("[budgets]\nroot = 0", "budgets.root = 0: not a size in bytes", None),
        ("[root]\npackages = 'strace'", "root.packages = 'strace': not a list of strings", None),
        ("[root]\npackages = ['strace=1']", "'strace=1' is not the name of a Debian package", "versions and releases"),
        ("[root]\npackages = ['libc6-']", "'libc6-' is not the name of a Debian package", None),
        ("[root]\npackages = ['-y']", "'-y' is not the name", None),
        ("files = 1", "files is an array of tables", "write [[files]]"),
        ("kernel = 1", "kernel is a table", "write [kernel]"),
        ("include = 'a'", "include: not a list of paths", None),
        ("include = ['guest.toml']", "it includes itself", None),
        ("include = ['../{folder}/guest.toml']", "it includes itself", None),
        ("x = ", "Invalid value", None),
        ("[kernel]\nuse = 'no-such'", "no such file or folder", "or one of auto, ours, debian"),
        ("[kernel]\nuse = 'debian'\nsource = 'linux-source-6.1'", "kernel.source = 'linux-source-6.1' cannot be used with", None),
        ("[kernel]\nuse = 'debian'\nfragments = ['guest.toml']", "kernel.fragments cannot be used with kernel.use = 'debian'", "leave one"),
        ("[kernel]\nparameters = ['a\"b']", "double quotes", None),
        ("[agent.settings]\ndev_mode = true\n[kernel]\nparameters = ['agent.config_file=/x']", "cannot be used together", None),
        ("[[files]]\npath = 'etc/a'\ntext = ''", "not an absolute path", None),
        ("[[files]]\npath = '/etc/../a'\ntext = ''", "not an absolute path", None),
        ("[[files]]\npath = '/run/a'\ntext = ''", "the guest mounts another file system over /run", "choose another folder"),
        ("[[files]]\npath = '/a'", "/a needs exactly one of source, text, link, folder, not none", None),
        ("[[files]]\npath = '/a'\ntext = ''\nlink = 'b'", "not text, link", None),
        ("[[files]]\npath = '/a'\nfolder = false", "folder = False: not a value for /a", None),
        ("[[files]]\npath = '/a'\ntext = ''\nmode = '0888'", "not three or four octal digits", None),
        ("[[files]]\npath = '/a'\nlink = 'b'\nmode = '0644'", "a link has no mode", None),
        ("[[files]]\npath = '/a'\ntext = ''\nowner = 'root'", "owner = 'root': not two numbers", None),
        ("[[files]]\npath = '/a'\ntext = ''\n[[files]]\npath = '/a'\ntext = ''", "files: /a is there twice", None),
        ("[agent]\npolicy = 'guest.toml'\n[[files]]\npath = '/etc/innkeeper/policy.toml'\ntext = ''", "what agent.policy becomes", "leave"),
    ],
)
def test_refused_by_name(tmp_path: Path, text: str, message: str, hint: str | None) -> None:
    with pytest.raises(InnkeeperError) as caught:
        read(tmp_path, guest=text.replace("{folder}", tmp_path.name))
    assert message in caught.value.message
    assert hint is None or (caught.value.hint or "").startswith(hint)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InnkeeperError, match=r"no\.toml: No such file"):
        config_file.read([tmp_path / "no.toml"])


def test_what_is_added_to_the_root(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    (tree / "sub").mkdir(parents=True)
    (tree / "sub" / "program").write_text("#!")
    (tree / "sub" / "program").chmod(0o700)
    (tree / "link").symlink_to("sub/program")
    text = """
    [[files]]
    path = "/opt/tree"
    source = "tree"
    owner = "7:8"
    [[files]]
    path = "/etc/empty"
    text = ""
    mode = "0400"
    [agent.settings]
    log_level = "debug"
    """
    found = [(one.path, one.kind, oct(one.mode), one.owner, one.target) for one in additions.added(read(tmp_path, guest=text))]
    assert found == [
        ("/etc/empty", "file", "0o400", "0:0", ""),
        ("/etc/innkeeper/agent.toml", "file", "0o644", "0:0", ""),
        ("/opt/tree", "folder", "0o755", "7:8", ""),
        ("/opt/tree/link", "link", "0o777", "7:8", "sub/program"),
        ("/opt/tree/sub", "folder", "0o755", "7:8", ""),
        ("/opt/tree/sub/program", "file", "0o755", "7:8", ""),
    ]


def test_the_tables_are_those_of_other_modules() -> None:
    assert set(config_checks.AGENT_SETTINGS) == {option.key for option in agent_config.OPTIONS}
    (source,) = (one for one in fields(config.KernelPart) if one.name == "source")
    assert source.metadata["choices"] == tuple(SOURCES) and source.default == next(iter(SOURCES))


def test_the_schema_describes_every_field() -> None:
    from innkeeper.guest.config_schema import schema

    document = schema()
    assert set(document["properties"]) == {"include", *(one.name for one in fields(Guest))}
    for name, kind in config.PARTS.items():
        table = document["properties"][name]
        properties = (table["items"] if name == "files" else table)["properties"]
        assert list(properties) == [one.name for one in fields(kind)]
        assert all(one["description"].endswith((".", ").")) for one in properties.values())
    assert json.loads(json.dumps(document)) == document
